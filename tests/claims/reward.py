"""Claims of the reward family."""

from qredit.lab.laws import StageSubject, Subject

BATTERY: tuple[Subject, ...] = ()
STAGES: tuple[StageSubject, ...] = ()
