"""Before a run: how cold a model is on its data, what that predicts, and what is advised: qredit probe.

measured = measure(load(options, 64), m=16, seed=0)     # needs the model
predicted = predict(measured.log_w, measured.right)     # from the arrays alone
advice = recommend(predicted)                           # from the prediction alone
"""

from qredit.probe.measure import Measurement, ProbeSetup, load, measure
from qredit.probe.predict import Prediction, QPrediction, predict
from qredit.probe.recommend import Advice, recommend
from qredit.stats.interval import Interval
from qredit.utils.former_names import former_names

__all__ = [
    "Advice",
    "Interval",
    "Measurement",
    "QPrediction",
    "Prediction",
    "ProbeSetup",
    "load",
    "measure",
    "predict",
    "recommend",
]

__getattr__ = former_names(
    __name__, {"Measured": "Measurement", "OfCommitment": "QPrediction", "Subject": "ProbeSetup"}
)
