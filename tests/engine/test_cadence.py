"""When parts with state move in a run whose rollouts serve several optimiser steps, and which policy they have seen."""

import json

import pytest
import torch
from transformers import TrainerCallback

from qredit import Objective, on_span
from qredit.core.chain import Cadence
from qredit.credit.measure import mean_entropy
from qredit.credit.reward import reward
from qredit.credit.running import subtract_running_mean
from qredit.engine.run_state import STATE_FILE
from qredit.engine.stage_state import accumulate_sums
from qredit.objectives import canon, grpo, siren
from qredit.penalties.entropy import adaptive_entropy
from qredit.penalties.nucleus import nucleus_entropy_anchor
from tests.support.marks import e2e
from tests.support.runs import length_reward, trainer
from tests.support.tiny import model

ADAPTED = grpo() | adaptive_entropy(target=99.0, step=0.01, most=1.0)
STRENGTH, ANCHOR = "penalty adaptive_entropy", "penalty nucleus_entropy_anchor"


class Seen(TrainerCallback):
    """The state after every optimiser step."""

    def __init__(self):
        self.made, self.states = None, []

    def on_step_end(self, args, state, control, **kwargs):
        self.states.append(self.made.stages.state)


def run(folder, objective, **changes):
    seen = Seen()
    seen.made = trainer(folder, objective, reward_funcs=length_reward, callbacks=[seen], **changes)
    seen.made.train()
    return seen


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        e2e({"steps_per_generation": 2}, [0, 1, 1, 2]),
        e2e({"num_iterations": 2}, [0, 1, 1, 2]),
        ({"steps_per_generation": 2, "num_iterations": 2}, [0, 0, 0, 1]),
        e2e({"gradient_accumulation_steps": 2, "steps_per_generation": 4}, [0, 1, 1, 2]),
    ],
    ids=str,
)
def test_an_adapted_strength_moves_once_a_generation(tmp_path, changes, expected):
    """Not once a step, which would be as many times faster as a generation serves steps."""
    seen = run(tmp_path, ADAPTED, max_steps=4, **changes)
    assert [state[STRENGTH]["strength"] for state in seen.states] == pytest.approx([0.01 * n for n in expected])


def test_it_moves_by_what_all_steps_of_the_generation_showed(tmp_path):
    moved = []

    class watched(adaptive_entropy):
        name = "adaptive_entropy"

        def update(self, state, statistics):
            moved.append(statistics["tokens"])
            return super().update(state, statistics)

    seen = run(tmp_path, grpo() | watched(target=99.0), max_steps=2, steps_per_generation=2)
    micro = seen.made._generation.microbatches
    assert moved == [sum(int(m.rows.batch.drawn_once.sum()) for m in micro)]


def test_a_mean_over_steps_still_moves_every_step(tmp_path):
    objective = Objective(on_span("sampled", reward() | subtract_running_mean())) | adaptive_entropy()
    seen = run(tmp_path, objective, max_steps=3, steps_per_generation=2)
    (place,) = objective.places((Cadence.STEP,))
    assert [state[place]["steps"] for state in seen.states] == [1, 2, 3]


@pytest.mark.e2e
def test_a_run_stopped_inside_a_generation_goes_on_as_if_not(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9, "steps_per_generation": 4}
    whole = run(tmp_path, ADAPTED, max_steps=4, **settings)
    saved = json.loads((tmp_path / "checkpoint-2" / STATE_FILE).read_text())
    assert saved["pending_statistics"][STRENGTH]["tokens"] > 0
    again = trainer(tmp_path, ADAPTED, reward_funcs=length_reward, max_steps=4, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.stages.state == whole.states[-1]
    assert again.stages.state[STRENGTH]["strength"] == pytest.approx(0.01)


def sharp():
    """A model whose entropies differ from token to token."""
    network = model()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 4
    return network


def first_evaluation(made):
    """What the first micro-batch is credited with, while a run of one step goes on."""
    found, at = [], made.step_credit.at

    def keep(*given):
        credited, counts = at(*given)
        found.append(credited)
        return credited, counts

    made.step_credit.at = keep
    made.train()
    return found[0]


@pytest.mark.parametrize("rows", [e2e(None), 3])
def test_sirens_anchor_is_of_the_whole_first_generation(tmp_path, rows):
    # under this seed the first step's own mean is 1.2 % off, more than twice what is asked below
    changes = {"steps_per_generation": 2, "max_steps": 1, "reward_funcs": length_reward, "rows_per_forward": rows}
    changes["seed"] = 3
    objective = siren(length=10, strength=1.0, level=0.5)
    made = trainer(tmp_path, objective, network=sharp(), **changes)
    credited = first_evaluation(made)
    untouched, sums = trainer(tmp_path, objective, network=sharp(), **changes), {}
    parts = []
    for micro in made._generation.microbatches:
        batch = untouched.scorer.score_batch_no_grad(untouched.model, micro.rows)
        parts.append(untouched.objective.statistics(batch, untouched.stages.state))
        accumulate_sums(sums, parts[-1])
    anchor = sums[ANCHOR]["sum"] / sums[ANCHOR]["rows"]
    own = parts[0][ANCHOR]["sum"] / parts[0][ANCHOR]["rows"]
    assert made.stages.state[ANCHOR]["anchor"] == pytest.approx(anchor, rel=1e-5)
    assert abs(own - anchor) > 0.005 * anchor, "the first step's own mean is another number"
    weight = credited.penalties[0]
    assert float(weight.sum()) == pytest.approx(2 * (own - anchor) * len(weight), rel=0.05, abs=1e-6)


def test_a_given_anchor_costs_no_pass(tmp_path):
    penalty = nucleus_entropy_anchor(anchor=0.5)
    assert penalty.settled(penalty.init())
    free = nucleus_entropy_anchor()
    assert not free.settled(free.init())
    assert free.settled({"anchor": 0.2, "steps": 1})


@pytest.mark.parametrize(
    "metric", ["canon(length=10, metric=mean_entropy())", "pear(right=0.9, wrong=0.1)", "aem(least_range=0.0)"]
)
def test_rewards_made_of_entropies_keep_to_policy_that_sampled(tmp_path, metric):
    """The second step on the same rollouts, under other weights, credits them as the first did."""
    made = trainer(tmp_path, metric, reward_funcs=length_reward, num_iterations=2, max_steps=2, learning_rate=0.1)
    seen, scored = [], made.scorer.attach_scores

    def watch(batch, *given):
        result = scored(batch, *given)
        seen.append((result, result.entropy.detach().clone()))
        return result

    made.scorer.attach_scores = watch
    made.train()
    (first, before), (second, after) = seen[-2:]
    assert float((before - after).abs().max()) > 0.01, "the policy moved"
    assert torch.allclose(first.extra["sampler_entropy"], before, atol=1e-5)
    assert torch.equal(second.extra["sampler_entropy"], first.extra["sampler_entropy"])
    assert torch.equal(made.objective.credit(first), made.objective.credit(second))


def test_on_policy_the_entropies_cost_no_further_pass(tmp_path):
    objective = canon(10, mean_entropy())
    made = trainer(tmp_path, objective, reward_funcs=length_reward, max_steps=1, rows_per_forward=8)
    passes, score = [], made.scorer.score
    made.scorer.score = lambda *given, **named: passes.append(1) or score(*given, **named)
    made.train()
    assert "sampler_entropy" in made.objective.needs
    assert len(passes) == 1
