"""Judges of single reasoning steps: where steps end in token ids, and who says which of them are wrong.

    thought = rollout.ids[: rollout.close_start]                 # the rationale: what the batch field `step` numbers
    numbers, texts = steps_of(thought, tokenizer), step_texts(thought, tokenizer)
    scores = ProcessRewardModel.load(path).score(question, texts)        # or EndpointJudge(url, model).wrong_steps(…)
    step_score = at_step_ends(numbers, scores)                  # one number per token: the batch field `step_score`

`qredit.rollouts.fields.step_scores_by` makes this a maker of the field for the trainer.

The sampled ids are never decoded and encoded again: a judge reads text, and what it says is put back by step number.
"""

from qredit.rewards.judge.endpoint import Case, EndpointJudge
from qredit.rewards.judge.model import ProcessRewardModel
from qredit.rewards.judge.steps import at_step_ends, in_steps, step_texts, steps_of
from qredit.rewards.judge.vote import intersection, majority, union

__all__ = [
    "Case",
    "EndpointJudge",
    "ProcessRewardModel",
    "at_step_ends",
    "in_steps",
    "intersection",
    "majority",
    "step_texts",
    "steps_of",
    "union",
]
