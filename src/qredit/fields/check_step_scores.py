"""`step_score`: what a check says of each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qredit.checks.protocol import score_verdict
from qredit.fields._step_check import CheckMaker
from qredit.rewards.judge.steps import place_at_step_ends
from qredit.rollouts.field_functions import reasoning_steps
from qredit.rollouts.field_maker import FieldTools
from qredit.rollouts.trajectory import FieldValues, Trajectory


@dataclass(frozen=True)
class check_step_scores(CheckMaker):
    """`step_score` (B, T): at the last token of a step 1 if a check calls it right, -1 if wrong, 0 elsewhere.

    A step ends at a blank line. A step that nothing can be said of has 0. Logged: `check/told`, the share of steps
    with a verdict, and `check/wrong`, the share of those that are wrong.

    Args:
        check: such as arithmetic(), or judge(url, model); see `qredit.checks`.

    Source: ours: the verdicts of GroundedPRM (arXiv 2510.14942) in the place of a process reward model's scores.
    """

    fills: ClassVar[tuple[str, ...]] = ("step_score",)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        verdicts = self._verdicts(trajectories, tools)
        numbers = reasoning_steps(trajectories, tools.tokenizer)
        return {
            "step_score": [
                place_at_step_ends(own, [score_verdict(one) for one in told])
                for own, told in zip(numbers, verdicts, strict=True)
            ]
        }
