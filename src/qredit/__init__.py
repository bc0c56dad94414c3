"""qredit: train reasoning models from answers alone, with one dial q from RLVR to maximum likelihood."""

from qredit import tsallis
from qredit.batch import RolloutBatch
from qredit.chain import Credit, Source, add, chain, on_span, per_span
from qredit.errors import QreditError
from qredit.objective import Objective, trace

__version__ = "0.1.0"

__all__ = [
    "Credit",
    "Objective",
    "QreditError",
    "RolloutBatch",
    "Source",
    "add",
    "chain",
    "on_span",
    "per_span",
    "trace",
    "tsallis",
]
