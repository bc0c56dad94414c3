"""Every registered objective trains and is evaluated in the trainer, on a generation used twice and on the next."""

import math

import pytest
import torch

from qredit.objectives import REGISTRY
from qredit.objectives.parsing import example
from qredit.rollouts.field_functions import BRANCHING_FIELDS, DRAWING_FIELDS, EPISODE_FIELDS, FIELD_FUNCTIONS
from tests.support.marks import e2e
from tests.support.runs import questions, trainer


def per_token(kind):
    """A maker of a number for each token, from its id and place."""

    def make(seen, tokenizer):
        return [[kind(token, place) for place, token in enumerate(one.ids)] for one in seen]

    return make


def by_place(kind):
    """A maker of one number for each rollout, from its place among them."""
    return lambda seen, tokenizer: [kind(number) for number in range(len(seen))]


GIVEN = {
    "planning": per_token(lambda token, place: token % 3 == 0),
    "wrong_step": per_token(lambda token, place: place > 2),
    "unused_step": per_token(lambda token, place: place > 2),
    "step_score": per_token(lambda token, place: (token % 7) / 7 if place % 3 == 2 else 0.0),
    "logp@better": per_token(lambda token, place: -1.0 - token % 3),
    "logp@worse": per_token(lambda token, place: -1.0 - token % 5),
    "value": per_token(lambda token, place: token % 5 / 5),
    "macro": per_token(lambda token, place: place // 2),
    "budget": per_token(lambda token, place: min(place // 2, 3)),
    **{
        f"budget_reward@{j}": (lambda seen, tokenizer, j=j: [(n + j) % 3 / 2 for n in range(len(seen))])
        for j in range(4)
    },
    "cluster": by_place(lambda number: number % 3),
    "turn_reward": per_token(lambda token, place: token % 5 / 5),
    "state": per_token(lambda token, place: token % 2),
    "logp@prm": per_token(lambda token, place: -1.0 - token % 3),
    "tree": by_place(lambda number: number % 2),
    "degenerate": by_place(lambda number: number % 4 == 2),
    "logp@ema": per_token(lambda token, place: -1.0 - token % 3),
    "reinforced": by_place(lambda number: number % 4 == 3),
    "support@before": per_token(lambda token, place: -1.0 - token % 3),
    "support@after": per_token(lambda token, place: -1.0 - token % 5),
    "answer_logp_at": per_token(lambda token, place: -1.0 - token % 3),
}


def right_or_wrong(completions, **columns):
    """Half of the first group is right, and one rollout of the second: `grpo_passk` learns from a lone success only."""
    return [float(number % 2 if number < 8 else number == 9) for number, _ in enumerate(completions)]


STANDS = {REGISTRY[name].family: name for name in sorted(REGISTRY, reverse=True)}
"""The first of each family stands for it in make test."""


@pytest.mark.parametrize("name", [name if name in STANDS.values() else e2e(name) for name in sorted(REGISTRY)])
def test_it_trains_and_is_evaluated(name, tmp_path):
    objective = example(name)
    made = trainer(
        tmp_path,
        objective,
        data=questions(4),
        reward_funcs=right_or_wrong,
        num_generations=8,
        per_device_train_batch_size=16,
        max_steps=3,  # one generation used twice, and the first step on the next
        num_iterations=2,
        learning_rate=1e-2,
        eval_strategy="steps",
        eval_steps=3,
        per_device_eval_batch_size=8,
        eval_dataset=questions(1),
        max_completion_length=6,
        fields={name: make for name, make in GIVEN.items() if name in objective.needs},
    )
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    assert [math.isfinite(entry["eval_loss"]) for entry in made.state.log_history if "eval_loss" in entry] == [True]
    moved = any(not torch.equal(p, old) for p, old in zip(made.model.parameters(), before, strict=True))
    assert moved


def test_supplied_fields_are_filled_by_nothing_but_episodes():
    assert GIVEN.keys() & FIELD_FUNCTIONS.keys() == {"cluster", *EPISODE_FIELDS, *BRANCHING_FIELDS, *DRAWING_FIELDS}
