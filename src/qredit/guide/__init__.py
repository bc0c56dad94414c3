"""Guidance during a run, as plain functions of what its groups show: which q, which estimator, whether it collapsed."""

from qredit.guide.collapse import Collapse, Fallen
from qredit.guide.controller import Controller, Decision, Groups, begin
from qredit.guide.loudness import loudness, quietest

__all__ = ["Collapse", "Controller", "Decision", "Fallen", "Groups", "begin", "loudness", "quietest"]
