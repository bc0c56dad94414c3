"""`step_score`: how many critiques of a language model call a step right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from qredit.fields._step_judge import Critiques, StepJudge
from qredit.rewards.judge.endpoint import WRONG_STEPS_TASK
from qredit.rewards.judge.steps import place_at_step_ends
from qredit.rollouts.field_functions import reasoning_steps
from qredit.rollouts.field_maker import FieldTools
from qredit.rollouts.trajectory import FieldValues, Trajectory


@dataclass(frozen=True)
class judge_step_scores(StepJudge):
    """`step_score` (B, T): at the last token of step n its score s_n in [-1, 1], 0 elsewhere.

        s_n = 1 - 2 · (critiques that call step n wrong) / (critiques that could be read)

    With one critique ±1. Of a rollout whose critiques could not be had or read every step has 0. Logged:
    `judge/unanswered` and `judge/unreadable`, the shares of such questions.

    Args:
        url: of the endpoint's chat completions, such as http://localhost:8000/v1/chat/completions.
        model: the model's name there.
        critiques: replies asked for per rationale; several need a temperature above 0.
        temperature: of the judge's sampling.
        show_answer: the judge is shown the gold answer.

    Source: ours, for the process reward model of arXiv 2504.15275 (PURE), whose P(good) - P(bad) it estimates: the
    share of critiques stands for the probability. `process_reward_model` runs such a model.
    """

    fills: ClassVar[tuple[str, ...]] = ("step_score",)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        critiques = self._ask([(WRONG_STEPS_TASK, one) for one in trajectories], tools)
        numbers = reasoning_steps(trajectories, tools.tokenizer)
        return {
            "step_score": [
                place_at_step_ends(own, score_steps(found, max(own, default=-1) + 1))
                for own, found in zip(numbers, critiques, strict=True)
            ]
        }


def score_steps(critiques: Critiques, steps: int) -> list[float]:
    """1 - 2 · the share of critiques that call a step wrong, for each step; 0 where there is no critique."""
    if not critiques:
        return [0.0] * steps
    return [1 - 2 * sum(step in critique for critique in critiques) / len(critiques) for step in range(steps)]
