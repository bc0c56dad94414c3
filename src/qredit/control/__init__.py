"""Guidance during a run, as plain functions of what its groups show: which q, which estimator, whether it collapsed."""

from qredit.control.collapse import CollapseDetector, DetectedCollapse
from qredit.control.controller import Decision, GroupStats, QController, start_controller
from qredit.control.signal_level import signal_level, smallest_sufficient_q

__all__ = [
    "CollapseDetector",
    "QController",
    "Decision",
    "DetectedCollapse",
    "GroupStats",
    "start_controller",
    "signal_level",
    "smallest_sufficient_q",
]
