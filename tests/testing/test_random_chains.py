"""Chains composed at random of all registered stages keep the promises that hold for each of them."""

import pickle
from dataclasses import dataclass, replace
from inspect import isabstract

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qredit.core import surrogate
from qredit.core.chain import Credit, Scope, Source, chain, named_stages, on_span
from qredit.core.objective import Objective, sum_terms
from qredit.credit.reward import reward
from qredit.objectives.parsing import parse
from qredit.testing.batches import make_batch_for
from qredit.testing.laws.values import make_degenerate_batches
from qredit.utils.errors import QreditError
from tests.support.battery import BATTERY, STAGES

SOURCES = sorted(
    {leaf for subject in BATTERY for _, leaf in named_stages(subject.objective.source) if isinstance(leaf, Source)},
    key=str,
)
CREDITS = sorted(
    {leaf for subject in STAGES for _, leaf in named_stages(subject.stage) if isinstance(leaf, Credit)}, key=str
)
PENALTIES = sorted({penalty for subject in BATTERY for penalty in subject.objective.penalties}, key=str)
SURROGATES = sorted({subject.objective.surrogate for subject in BATTERY}, key=str)
REDUCTIONS = sorted({subject.objective.reduction for subject in BATTERY}, key=str)


@st.composite
def objectives(draw) -> Objective:
    """A source, up to four credits, some on spans, on the sampled tokens or everywhere; up to two penalties."""
    source = chain(draw(st.sampled_from(SOURCES)), *draw(st.lists(st.sampled_from(CREDITS), max_size=4)))
    if draw(st.booleans()):
        source = on_span(draw(st.sampled_from(["sampled", "rationale"])), source)
    penalties = draw(st.lists(st.sampled_from(PENALTIES), max_size=2))
    return Objective(
        source, draw(st.sampled_from(SURROGATES)), draw(st.sampled_from(REDUCTIONS)), tuple(penalties)
    )  # fmt: skip


def evaluated(objective, batch):
    """The evaluation, or None where stages refuse one another in a line of their own."""
    try:
        return objective.evaluate(batch)
    except QreditError as error:
        refusals = (
            "one number per rollout",
            "changes the reduction's denominator",
            "needs rewards of 0 or 1",
            "needs rewards ≥ 0",
            "must lie between 0",
            "scales a trust region",
        )
        if any(words in str(error) for words in refusals):
            return None
        raise


def keeps_its_promises(objective, batch):
    credited = evaluated(objective, batch)
    if credited is None:
        return
    assert credited.value.shape == batch.mask.shape
    assert credited.value.dtype == torch.float32
    assert credited.value.isfinite().all()
    assert not credited.value[~batch.trainable].any()
    leaves = [stage.needs for _, stage in named_stages(objective.source)]
    assert objective.needs == frozenset().union(*leaves, *(penalty.needs for penalty in objective.penalties))
    assert pickle.loads(pickle.dumps(objective)) == objective
    assert parse(repr(replace(objective, text=""))) == objective


@pytest.mark.slow
@settings(max_examples=150)
@given(objectives(), st.integers(0, 50))
def test_whatever_is_composed_keeps_its_promises(objective, seed):
    keeps_its_promises(objective, make_batch_for(objective, seed))


@pytest.mark.slow
@settings(max_examples=30)
@given(objectives(), st.integers(0, 50))
def test_whatever_is_composed_is_finite_on_degenerate_groups(objective, seed):
    for degenerate in make_degenerate_batches(make_batch_for(objective, seed)).values():
        credited = evaluated(objective, degenerate)
        if credited is None:
            continue
        logp = torch.where(degenerate.mask, -1.0, 0.0).double().requires_grad_()
        assert credited.value.isfinite().all()
        terms = objective.numerators(logp, degenerate, credited)
        loss = sum_terms(terms, objective.denominators(degenerate, credited))
        slope = torch.autograd.grad(loss, logp, allow_unused=True, materialize_grads=True)[0]
        assert slope.isfinite().all()


@settings(max_examples=60)
@given(objectives(), st.integers(0, 50))
def test_whatever_is_composed_may_be_cut_into_whole_groups(objective, seed):
    batch = make_batch_for(objective, seed)
    whole = evaluated(objective, batch)
    if whole is None or objective.scope >= Scope.BATCH:
        return
    for number in batch.group.unique():
        rows = batch.group == number
        part = objective.evaluate(batch.select(rows))
        assert torch.allclose(part.value, whole.value[rows], rtol=1e-5, atol=1e-30)
        for own, all_of_them in zip(part.penalties, whole.penalties, strict=True):
            assert torch.allclose(own, all_of_them[rows], rtol=1e-5, atol=1e-30)
        assert (part.clip_scale is None) == (whole.clip_scale is None)
        if part.clip_scale is not None and whole.clip_scale is not None:
            assert torch.allclose(part.clip_scale, whole.clip_scale[rows], rtol=1e-5)


def test_the_pool_holds_every_kind():
    assert len(SOURCES) > 8
    assert len(CREDITS) > 30
    assert len(PENALTIES) > 10
    exported = {kind for name, kind in vars(surrogate).items() if not name.startswith("_") and isinstance(kind, type)}
    concrete = {kind for kind in exported if issubclass(kind, surrogate.Surrogate) and not isabstract(kind)}
    assert {type(one) for one in SURROGATES} == concrete


@dataclass(frozen=True)
class divides_by_the_batch(Credit):
    """c over the sum of all c: NaN where that is 0, and said to need nothing but its row."""

    def __call__(self, coefficient, batch):
        return replace(coefficient, value=coefficient.value / (0 * coefficient.value.sum()))


def test_a_careless_stage_is_caught():
    objective = Objective(reward() | divides_by_the_batch())
    with pytest.raises(AssertionError):
        keeps_its_promises(objective, make_batch_for(objective, 0))
