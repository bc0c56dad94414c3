"""Judges of single reasoning steps: where steps end in token ids, and who says which of them are wrong.

    thought = rollout.ids[: rollout.close_start]                 # the rationale: what the batch field `step` numbers
    numbers, texts = steps_of(thought, tokenizer), step_texts(thought, tokenizer)
    scores = ProcessRewardModel.load(path).score(question, texts)        # or EndpointJudge(url, model).wrong_steps(…)
    step_score = at_step_ends(numbers, scores)                  # one number per token: the batch field `step_score`

`qredit.rollouts.field_functions.make_step_scorer` makes this a maker of the field for the trainer.

The sampled ids are never decoded and encoded again: a judge reads text, and what it says is put back by step number.
"""

from qredit.rewards.judge.endpoint import EndpointJudge, JudgeCase
from qredit.rewards.judge.model import ProcessRewardModel
from qredit.rewards.judge.steps import mark_steps, number_steps, place_at_step_ends, split_step_texts
from qredit.rewards.judge.vote import intersection, majority, union
from qredit.utils.former_names import former_names

__all__ = [
    "JudgeCase",
    "EndpointJudge",
    "ProcessRewardModel",
    "place_at_step_ends",
    "mark_steps",
    "intersection",
    "majority",
    "split_step_texts",
    "number_steps",
    "union",
]

__getattr__ = former_names(
    __name__,
    {
        "Case": "JudgeCase",
        "at_step_ends": "place_at_step_ends",
        "in_steps": "mark_steps",
        "step_texts": "split_step_texts",
        "steps_of": "number_steps",
    },
)
