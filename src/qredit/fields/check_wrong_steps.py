"""`wrong_step`: the steps that a check calls wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qredit.fields._step_check import CheckMaker
from qredit.rewards.judge.steps import mark_steps
from qredit.rollouts.field_functions import reasoning_steps
from qredit.rollouts.field_maker import FieldTools
from qredit.rollouts.trajectory import FieldValues, Trajectory


@dataclass(frozen=True)
class check_wrong_steps(CheckMaker):
    """`wrong_step` (B, T): True on the tokens of steps that a check calls wrong.

    A step ends at a blank line. A step that nothing can be said of is not wrong. Logged: `check/told`, the share of
    steps with a verdict, and `check/wrong`, the share of those that are wrong.

    Args:
        check: such as arithmetic(), or judge(url, model); see `qredit.checks`.

    Source: ours: a tool in the place of the judge of CAPO (arXiv 2508.02298).
    """

    fills: ClassVar[tuple[str, ...]] = ("wrong_step",)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        verdicts = self._verdicts(trajectories, tools)
        wrong = [{place for place, one in enumerate(told) if one is False} for told in verdicts]
        return {
            "wrong_step": [
                mark_steps(numbers, steps)
                for numbers, steps in zip(reasoning_steps(trajectories, tools.tokenizer), wrong, strict=True)
            ]
        }
