"""Steps whose equations are recomputed."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.checks.protocol import StepCase, StepCheck, Verdict
from qredit.rewards.equations import judge_equations


@dataclass(frozen=True)
class arithmetic(StepCheck):
    """Wrong where an equation of numbers in the step does not hold, right where all do, None where there is none.

    Numbers are exact fractions. Which equations are read, and how numbers may be rounded, is said in
    `qredit.rewards.equations.judge_equations`. It knows nothing of the question: a step that computes something else
    than what was asked is right, if it computes well.

    Source: ours, in the place of the calls of Wolfram Alpha in GroundedPRM (arXiv 2510.14942), which a language model
    writes and judges there.
    """

    def check(self, cases: Sequence[StepCase]) -> list[Verdict]:
        return [judge_equations(case.step) for case in cases]
