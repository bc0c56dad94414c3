"""Before a run: how cold a model is on its data, what that predicts, and what is advised: qredit probe.

measured = measure(load(options, 64), m=32, seed=0)     # needs the model
predicted = predict(measured.log_w, measured.right)     # from the arrays alone
advice = recommend(predicted)                           # from the prediction alone
"""

from qredit.probe.measure import Measured, Subject, load, measure
from qredit.probe.predict import OfCommitment, Prediction, predict
from qredit.probe.recommend import Advice, recommend
from qredit.stats.interval import Interval

__all__ = [
    "Advice",
    "Interval",
    "Measured",
    "OfCommitment",
    "Prediction",
    "Subject",
    "load",
    "measure",
    "predict",
    "recommend",
]
