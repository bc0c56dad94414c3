"""Guidance during a run, as plain functions of what its groups show: which q, which estimator, whether it collapsed."""

from qredit.control.collapse import Collapse, Fallen
from qredit.control.controller import Controller, Decision, Groups, begin
from qredit.control.loudness import loudness, quietest

__all__ = ["Collapse", "Controller", "Decision", "Fallen", "Groups", "begin", "loudness", "quietest"]
