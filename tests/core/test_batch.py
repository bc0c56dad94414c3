"""RolloutBatch: what it fills in, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit import QreditError, RolloutBatch
from qredit.objectives import garl, grpo
from qredit.stats.groups import Groups
from tests.support.batches import likelihood_batch, reward_batch


def test_sampled_defaults_to_the_mask_outside_the_answer():
    mask = torch.tensor([[True, True, True, False]])
    answer = torch.tensor([[False, False, True, False]])
    batch = RolloutBatch(mask=mask, rationale=mask & ~answer, answer=answer, group=torch.tensor([7]))
    assert batch.sampled.tolist() == [[True, True, False, False]]
    assert batch.trainable.tolist() == [[True, True, True, False]]


def test_a_forced_token_is_not_trainable():
    batch = likelihood_batch([-1.0], rationale=2, forced=1, answer=1)
    assert batch.trainable.tolist() == [[True, True, False, True]]


def test_observation_exists_and_is_neither_sampled_nor_trained():
    """z, what a tool wrote, z again, answer: the coefficient stands on sampled tokens and the answer alone."""
    mask = torch.ones(2, 5, dtype=torch.bool)
    column = torch.arange(5).expand(2, 5)
    written, answer = column == 1, column == 4
    batch = RolloutBatch(
        mask=mask,
        rationale=~written & ~answer,
        answer=answer,
        observation=written,
        group=torch.zeros(2, dtype=torch.long),
        answer_logp=torch.tensor([0.5, 0.1], dtype=torch.float64).log(),
        reward=torch.tensor([1.0, 0.0], dtype=torch.float64),
    )
    assert batch.sampled.tolist() == [[True, False, True, True, False]] * 2
    assert batch.span("observation").tolist() == written.tolist()
    for objective in (garl(0.5), grpo()):
        credit = objective.credit(batch)
        assert bool((credit[written] == 0).all())
        assert bool((credit[batch.sampled] != 0).any())
    with pytest.raises(QreditError, match="observation and sampled overlap"):
        replace(batch, sampled=mask & ~answer)
    with pytest.raises(QreditError, match="observation and answer overlap"):
        replace(batch, observation=written | answer)
    with pytest.raises(QreditError, match="observation marks positions that the mask leaves out"):
        replace(batch, mask=mask & ~written)


def test_two_tails_of_one_rationale_count_once():
    batch = replace(reward_batch([0.0, 1.0, 1.0]), rollout=torch.tensor([5, 5, 6]))
    assert batch.rollouts == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rationale": torch.ones(2, 4, dtype=torch.bool)}, "rationale must have shape"),
        ({"rationale": torch.ones(2, 5)}, "rationale must be a bool tensor"),
        ({"reward": torch.zeros(3)}, "reward must have shape"),
        ({"sampled": torch.ones(2, 5, dtype=torch.bool)}, "sampled and answer overlap"),
        ({"mask": torch.zeros(2, 5, dtype=torch.bool)}, "positions that the mask leaves out"),
        ({"answer_logp": torch.tensor([-1.0, torch.nan])}, "NaN in row 1"),
        ({"answer_logp": torch.tensor([-1.0, 12.5])}, "was a negative log-likelihood passed"),
        ({"extra": {"score": torch.zeros(7)}}, "extra field 'score'"),
    ],
)
def test_a_malformed_field_is_refused_by_name(change, words):
    with pytest.raises(QreditError, match=words):
        replace(likelihood_batch([-1.0, -2.0]), **change)


def test_an_unknown_span_lists_those_there_are():
    with pytest.raises(QreditError, match="no span 'ratonale'; this batch has 'answer', 'close', 'mask', 'rationale'"):
        likelihood_batch([-1.0]).span("ratonale")


def test_extra_fields_serve_as_spans_and_inputs():
    planner = torch.tensor([[True, False, False, False, False]])
    batch = replace(likelihood_batch([-1.0]), extra={"planner": planner})
    assert torch.equal(batch.span("planner"), planner)
    assert torch.equal(batch.require("planner", "test"), planner)
    with pytest.raises(QreditError, match="test needs the batch field 'judge'"):
        batch.require("judge", "test")


values = st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5), st.booleans()), min_size=1, max_size=12)


@given(values)
def test_group_statistics_agree_with_a_loop_over_groups(rows):
    group = torch.tensor([g for g, _, _ in rows])
    value = torch.tensor([v for _, v, _ in rows], dtype=torch.float64)
    keep = torch.tensor([k for _, _, k in rows])
    groups = Groups.of(group)
    for i in range(len(rows)):
        mine = (group == group[i]) & keep
        others = mine.clone()
        others[i] = False
        kept = value[mine]
        assert float(groups.count(keep)[i]) == int(mine.sum())
        assert float(groups.mean(value, keep)[i]) == pytest.approx(float(kept.mean()) if len(kept) else 0.0)
        std = float(kept.std()) if len(kept) > 1 else 0.0
        assert float(groups.std(value, keep)[i]) == pytest.approx(std, abs=1e-12)
        rest = float(value[others].mean()) if others.any() else 0.0
        assert float(groups.mean_of_others(value, keep)[i]) == pytest.approx(rest, abs=1e-12)
        assert float(groups.log_mean_exp(value, keep)[i]) == pytest.approx(_log_mean_exp(value[mine]))
        assert float(groups.log_mean_exp_of_others(value, keep)[i]) == pytest.approx(_log_mean_exp(value[others]))


def _log_mean_exp(kept):
    return float(kept.exp().mean().log()) if len(kept) else -torch.inf


def test_the_std_of_equal_values_is_exactly_zero():
    value = torch.full((3,), 0.1, dtype=torch.float64)
    assert float((value - value.mean()).abs().max()) > 0  # the residue that would otherwise be divided by
    assert Groups.of(torch.zeros(3, dtype=torch.long)).std(value, torch.ones(3, dtype=torch.bool)).tolist() == [0.0] * 3
