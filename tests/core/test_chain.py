"""Stages and how they compose."""

import pickle
from dataclasses import dataclass, replace

import pytest
import torch

from qredit import Objective, QreditError, add, chain, on_span, per_span, trace
from qredit.core.chain import Credit, Scope, Source, When
from qredit.core.schedule import cosine, linear, steps
from qredit.credit.group import center_by_group, scale_by_batch_std, scale_by_group_std, subtract_mean_of_others
from qredit.credit.likelihood import amplified_likelihood, resample_by_likelihood
from qredit.credit.reward import reward
from qredit.credit.running import subtract_running_mean
from qredit.objectives import REGISTRY, garl, grpo, paft, rloo
from tests.support.batches import likelihood_batch, reward_batch
from tests.support.rounding import same


@dataclass(frozen=True)
class double(Credit):
    def __call__(self, coefficient, batch):
        return replace(coefficient, value=2 * coefficient.value)


@dataclass(frozen=True)
class drop_first_row(Credit):
    def __call__(self, coefficient, batch):
        keep = torch.ones_like(coefficient.value, dtype=torch.bool)
        keep[0] = False
        return replace(coefficient, keep=keep)


@dataclass(frozen=True)
class count_only_first_token(Credit):
    scope = Scope.BATCH

    def __call__(self, coefficient, batch):
        weight = torch.zeros(batch.mask.shape, dtype=torch.float64)
        weight[:, 0] = 1.0
        return replace(coefficient, weight=weight)


def credit(source, batch):
    return Objective(source).credit(batch)


def test_a_chain_is_a_source_and_flattens():
    whole = chain(reward(), center_by_group(), scale_by_group_std())
    assert isinstance(whole, Source)
    assert whole == reward() | center_by_group() | scale_by_group_std()
    assert whole == chain(chain(reward(), center_by_group()), scale_by_group_std())
    assert whole == reward() | (center_by_group() | scale_by_group_std())
    assert str(whole) == "reward() | center_by_group() | scale_by_group_std(epsilon=0.0001)"


def test_stages_compare_hash_and_pickle():
    for make in (garl(0.75), paft(0.5, resamples=3), grpo(), garl(linear(1, 0))):
        assert pickle.loads(pickle.dumps(make)) == make
        assert hash(pickle.loads(pickle.dumps(make))) == hash(make)
    assert garl(0.75) != garl(0.5)


def test_add_sums_and_scales():
    batch = reward_batch([1.0, 0.0, 3.0])
    assert credit(add(reward(), 0.5 * reward()), batch)[:, 0].tolist() == [1.5, 0.0, 4.5]
    assert credit(reward() + 0.5 * reward(), batch)[:, 0].tolist() == [1.5, 0.0, 4.5]
    assert credit(2 * (reward() | subtract_mean_of_others()), batch)[:, 0].tolist() == [-1.0, -4.0, 5.0]


def test_add_counts_a_dropped_row_as_zero():
    batch = reward_batch([1.0, 1.0])
    assert credit(reward() + (reward() | drop_first_row()), batch)[:, 0].tolist() == [1.0, 2.0]


def test_source_on_span_is_zero_outside_and_credit_leaves_rest():
    batch = likelihood_batch([-1.0, -2.0], rationale=2, forced=0, answer=1)
    source = amplified_likelihood(0.0, normalize=False)
    w = [pytest.approx(0.36788, abs=1e-5), pytest.approx(0.13534, abs=1e-5)]
    on_answer = credit(on_span("answer", source), batch)
    assert on_answer[:, 2].tolist() == w
    assert float(on_answer[:, :2].abs().max()) == 0.0
    doubled = credit(source | on_span("answer", double()), batch)
    assert doubled[:, 0].tolist() == w
    assert torch.allclose(doubled[:, 2], 2 * doubled[:, 0])


def test_per_span_takes_each_source_on_its_span_and_no_overlap():
    batch = likelihood_batch([-1.0, -2.0], rationale=2, forced=1, answer=1)
    source = amplified_likelihood(0.0, normalize=False)
    parted = credit(per_span(rationale=source, answer=2 * source), batch)
    assert torch.allclose(parted[:, 3], 2 * parted[:, 0])
    assert parted[:, 2].tolist() == [0.0, 0.0]
    with pytest.raises(QreditError, match="'sampled' overlaps an earlier span"):
        credit(per_span(rationale=source, sampled=source), batch)


def test_an_unknown_span_is_named_with_the_choices():
    with pytest.raises(QreditError, match="no span 'ratonale'; this batch has 'answer'"):
        credit(on_span("ratonale", reward()), reward_batch([1.0, 0.0]))


def test_a_rollout_stage_after_a_token_stage_is_refused_by_name():
    with pytest.raises(QreditError, match=r"center_by_group\(\) works on one number per rollout"):
        credit(on_span("rationale", reward()) | center_by_group(), reward_batch([1.0, 0.0]))


def test_needs_scope_and_when_of_chain_are_widest_of_its_parts():
    mixed = add(reward() | center_by_group(), amplified_likelihood(0.5) | resample_by_likelihood())
    assert mixed.needs == {"reward", "answer_logp", "seed"}
    assert (reward().scope, mixed.scope, (reward() | scale_by_batch_std()).scope) == (
        Scope.ROW,
        Scope.GROUP,
        Scope.BATCH,
    )
    assert grpo().when == When.ROLLOUT
    assert garl(0.5).when == mixed.when == When.UPDATE
    assert on_span("rationale", mixed).needs == mixed.needs


def test_row_without_reward_stays_out_of_its_groups_statistics():
    scored = rloo().credit(reward_batch([1.0, 0.0, 0.0]))
    with_hole = rloo().credit(reward_batch([1.0, 0.0, float("nan"), 0.0]))
    assert same(with_hole[[0, 1, 3]], scored)
    assert with_hole[2].tolist() == [0.0, 0.0, 0.0]


def test_a_dropped_row_leaves_later_statistics():
    batch = reward_batch([9.0, 1.0, 3.0])
    assert credit(reward() | drop_first_row() | center_by_group(), batch)[:, 0].tolist() == [0.0, -1.0, 1.0]


def test_a_weight_changes_the_denominator():
    from qredit.core.reduce import mean_per_token

    batch = reward_batch([1.0, 1.0])
    logp = torch.full((2, 3), -1.0, requires_grad=True)
    plain = Objective(reward(), reduction=mean_per_token())
    weighted = Objective(reward() | count_only_first_token(), reduction=mean_per_token())
    assert plain.loss(logp, batch).item() == pytest.approx(1.0)
    assert weighted.loss(logp, batch).item() == pytest.approx(3.0)


def test_trace_shows_every_stage_and_ends_with_the_credit():
    batch = likelihood_batch([-1.0, -2.0])
    objective = garl(0.5)
    shown = trace(objective, batch)
    rest = "normalize=True, ratio=sequence_truncate(limit=3.0)"
    assert list(shown) == [
        f"rationale/amplified_likelihood(q=0.5, {rest})",
        f"rationale/subtract_likelihood_baseline(q=0.5, {rest})",
        f"answer/amplified_likelihood(q=0.5, {rest})",
        "credit",
    ]
    assert torch.equal(shown["credit"], objective.credit(batch))
    for name, value in shown.items():
        assert value.shape == batch.mask.shape
        span = name.split("/")[0]
        if span != "credit":
            assert float(value[~batch.span(span)].abs().max()) == 0.0
    assert list(trace(Objective(reward() | double() | double()), reward_batch([1.0]))) == [
        "reward()",
        "double()",
        "double() #2",
        "credit",
    ]


def test_a_schedule_is_resolved_everywhere_or_refused():
    objective = garl(linear(1.0, 0.0))
    assert objective.at(0.25) == garl(0.75)
    with pytest.raises(QreditError, match=r"is a schedule; take objective.at\(progress\)"):
        objective.credit(likelihood_batch([-1.0, -2.0]))
    with pytest.raises(QreditError, match="q must be a number between 0 and 1, got 1.5"):
        garl(linear(1.5, 0.0))


def test_schedules_at_worked_points():
    assert [linear(1, 0).at(p) for p in (0, 0.25, 1, 2)] == [1, 0.75, 0, 0]
    assert [round(cosine(1, 0).at(p), 6) for p in (0, 0.5, 1)] == [1, 0.5, 0]
    assert [steps((1, 0.5, 0), (0.2, 0.6)).at(p) for p in (0, 0.2, 0.59, 0.6, 1)] == [1, 0.5, 0.5, 0, 0]
    with pytest.raises(QreditError, match="one value more than switches"):
        steps((1, 0), (0.2, 0.6))
    with pytest.raises(QreditError, match="must ascend"):
        steps((1, 0, 1), (0.6, 0.2))


def test_state_is_explicit_and_moves_only_by_update():
    objective = Objective(on_span("sampled", reward() | subtract_running_mean(decay=0.5)))
    first, second = reward_batch([1.0, 0.0]), reward_batch([1.0, 1.0])
    state = objective.init_state()
    assert list(state) == ["sampled/1."]
    assert objective.credit(first, state)[:, 0].tolist() == [1.0, 0.0]
    state = objective.update_state(state, objective.statistics(first, state))
    assert state["sampled/1."] == {"mean": 0.5, "steps": 1}
    assert objective.credit(second, state)[:, 0].tolist() == [0.5, 0.5]
    state = objective.update_state(state, objective.statistics(second, state))
    assert state["sampled/1."] == {"mean": 0.75, "steps": 2}
    assert objective.credit(second)[:, 0].tolist() == [1.0, 1.0]


def test_chains_are_built_of_the_right_parts():
    with pytest.raises(QreditError, match="a chain starts with a source"):
        chain(center_by_group(), center_by_group())
    with pytest.raises(QreditError, match="a chain holds credits"):
        chain(reward(), reward())
    with pytest.raises(QreditError, match="add sums sources"):
        add(reward(), garl(0.5))
    with pytest.raises(QreditError, match="on_span takes a source or a credit"):
        on_span("rationale", garl(0.5))


def test_every_registered_objective_says_its_claim_and_source():
    for name, make in REGISTRY.items():
        assert make.__doc__, name
        assert "arXiv" in make.__doc__, name
        assert "zero" in make.__doc__.lower() or name in ("verifree", "sft_then_rlvr"), name


def test_a_row_that_no_summand_keeps_stays_out_of_statistics():
    batch = reward_batch([1.0, 1.0, torch.nan])
    assert ((reward() + 0.5 * reward()) | center_by_group())(batch).spread(batch)[:2].abs().max() == 0
