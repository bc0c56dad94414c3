"""What is said of a rollout's own tokens is said once: on its sampled answer's row, or on the one row that it has."""

import math
from dataclasses import replace

import pytest
import torch

from qredit.core.batch import RolloutBatch, concatenate
from qredit.core.chain import chain
from qredit.credit.answer_support import support_gain
from qredit.credit.budget import budget_advantage
from qredit.credit.contrast import contrastive_reward
from qredit.credit.group import center_by_group
from qredit.credit.implicit_reward import implicit_reward
from qredit.credit.reinforced import reinforce_drawn
from qredit.credit.reward import punish_degenerate, reward
from qredit.credit.step import step_scores
from qredit.credit.teacher_ratio import teacher_log_ratio
from qredit.objectives import garl
from qredit.testing.batches import random_batch
from qredit.testing.fields import random_field

SOURCES = [
    contrastive_reward(),
    implicit_reward("prm"),
    teacher_log_ratio("teacher"),
    step_scores(),
    support_gain(terminal=1.0),
    budget_advantage((0.25, 0.25, 0.25, 0.25)),
]


def credited(source, said):
    """A batch whose rows of gold answers have rows of sampled ones beside them, or not, and the value of a source."""
    batch = random_batch(3, gold=True, said=said)
    generator = torch.Generator().manual_seed(5)
    missing = sorted(source.needs - set(batch.present))
    batch = replace(batch, extra={name: random_field(name, batch, generator) for name in missing})
    return batch, source(batch).spread(batch)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_a_token_of_two_rows_is_credited_in_one(source):
    batch, value = credited(source, said=True)
    assert bool((value[~batch.has_answer] != 0).any())
    assert bool((value[batch.has_answer] == 0).all())


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_a_gold_answer_s_row_stands_where_it_is_alone(source):
    batch, value = credited(source, said=False)
    assert bool(batch.has_answer.all())
    assert bool((value != 0).any())


def test_an_empty_answer_s_row_stands_before_the_gold_one_s():
    span = torch.tensor([[True], [True]])
    batch = RolloutBatch(
        mask=span,
        rationale=~span,
        answer=torch.tensor([[True], [False]]),
        sampled=~span,
        group=torch.zeros(2, dtype=torch.long),
        rollout=torch.zeros(2, dtype=torch.long),
    )
    assert batch.drawn_rows.tolist() == [False, True]


def test_a_gold_answer_of_a_degenerate_rollout_keeps_its_own():
    batch = random_batch(3, gold=True, said=False)
    batch = replace(batch, extra={"degenerate": torch.arange(len(batch.mask)) == 1})
    plain, punished = (one.credit(batch) for one in (garl(q=0.5), garl(q=0.5) | punish_degenerate(-3.0)))
    own = batch.sampled[1]
    assert punished[1][own].tolist() == [-3.0] * int(own.sum())
    plain[1] = torch.where(own, -3.0, plain[1])
    assert torch.equal(punished, plain)


def test_rows_of_several_batches_stay_apart():
    two, one = random_batch(3, gold=True, said=True), random_batch(4, gold=False, said=True)
    joined = concatenate([two, one])
    assert joined.drawn_rows.tolist() == two.drawn_rows.tolist() + [True] * len(one.mask)
    assert joined.rollouts == two.rollouts + one.rollouts


@pytest.mark.parametrize(
    ("stages", "field", "expected"),
    [
        ((reward(), punish_degenerate(), center_by_group()), "degenerate", (1.0, -1.0)),
        ((reward(), reinforce_drawn(0.5), center_by_group()), "reinforced", (0.25, -0.25)),
    ],
)
def test_a_number_put_in_the_place_of_a_reward_counts_once(stages, field, expected):
    gold = torch.tensor([True, False, True, False])[:, None]
    span = torch.ones(4, 1, dtype=torch.bool)
    batch = RolloutBatch(
        mask=span,
        rationale=~span,
        answer=gold & span,
        response=~gold & span,
        group=torch.zeros(4, dtype=torch.long),
        rollout=torch.tensor([0, 0, 1, 1]),
        reward=torch.tensor([math.nan, 1.0, math.nan, math.nan]),
        extra={field: torch.tensor([False, False, True, True])},
    )
    value = chain(*stages)(batch).spread(batch)[:, 0]
    assert value.tolist() == [0.0, expected[0], 0.0, expected[1]]
