"""What makers share that have each step of a rationale checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from qredit.checks.protocol import StepCase, StepCheck, Verdict, check_cases, require_check
from qredit.rewards.judge.endpoint import show_prompt
from qredit.rewards.judge.steps import split_step_texts
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import Trajectory


@dataclass(frozen=True)
class CheckMaker(RolloutMaker):
    """A maker that asks a `StepCheck`.

    Logged: `check/told`, the share of steps with a verdict, and `check/wrong`, the share of those that are wrong.
    """

    one_turn: ClassVar[bool] = True  # results of tools stand between the steps of a longer episode
    check: StepCheck

    def __post_init__(self) -> None:
        require_check(type(self).__name__, self.check)

    @property
    def own_functions(self) -> tuple[Any, ...]:
        return () if type(self.check).__module__.startswith("qredit.") else (type(self.check).check,)

    def _verdicts(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> list[list[Verdict]]:
        """The verdict on each step of each rollout.

        Args:
            trajectories: of one turn.
            tools: of the run.
        """
        steps = [split_step_texts(one.rationale_ids, tools.tokenizer) for one in trajectories]
        cases = [
            StepCase(show_prompt(one.example["prompt"]), tuple(own[:place]), own[place], _find_answer(one))
            for one, own in zip(trajectories, steps, strict=True)
            for place in range(len(own))
        ]
        told = iter(found := check_cases(self.check, cases))
        known = [one for one in found if one is not None]
        tools.log_metric("check/told", len(known) / max(len(found), 1))
        tools.log_metric("check/wrong", known.count(False) / max(len(known), 1))
        return [[next(told) for _ in own] for own in steps]


def _find_answer(one: Trajectory) -> str | None:
    answer = one.example.get("answer")
    return None if answer is None else str(answer)
