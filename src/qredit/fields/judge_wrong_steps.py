"""`wrong_step`: the steps that a language model calls wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qredit.fields._step_judge import Critiques, StepJudge
from qredit.rewards.judge.endpoint import WRONG_STEPS_TASK
from qredit.rewards.judge.steps import mark_steps
from qredit.rewards.judge.vote import intersection, majority, union
from qredit.rollouts.field_functions import reasoning_steps
from qredit.rollouts.field_maker import FieldTools
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import look_up

VOTES: Mapping[str, Callable[[Critiques], frozenset[int]]] = {
    "intersection": intersection,
    "majority": majority,
    "union": union,
}


@dataclass(frozen=True)
class judge_wrong_steps(StepJudge):
    """`wrong_step` (B, T): True on the tokens of steps that a judge behind an endpoint calls wrong.

    A step ends at a blank line. Of a rollout whose critiques could not be had or read no step is wrong. Logged beside
    `judge/unanswered` and `judge/unreadable`, the shares of such questions: `judge/wrong_steps`, the mean number of
    wrong steps of a rollout.

    Args:
        url: of the endpoint's chat completions, such as http://localhost:8000/v1/chat/completions.
        model: the model's name there.
        critiques: replies asked for per rationale; several need a temperature above 0.
        temperature: of the judge's sampling.
        show_answer: the judge is shown the gold answer.
        vote: what is wrong by several critiques: intersection, majority (at least half) or union.

    Source: arXiv 2508.02298 (CAPO), known from others' notes: 4 critiques, intersection for small models, majority or
    union for 7B. Difference: the wording of the task is ours.
    """

    vote: str = "majority"
    fills: ClassVar[tuple[str, ...]] = ("wrong_step",)

    def __post_init__(self) -> None:
        super().__post_init__()
        look_up("vote", self.vote, VOTES)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        critiques = self._ask([(WRONG_STEPS_TASK, one) for one in trajectories], tools)
        wrong = [VOTES[self.vote](found) for found in critiques]
        tools.log_metric("judge/wrong_steps", sum(map(len, wrong)) / max(len(wrong), 1))
        return {
            "wrong_step": [
                mark_steps(numbers, steps)
                for numbers, steps in zip(reasoning_steps(trajectories, tools.tokenizer), wrong, strict=True)
            ]
        }
