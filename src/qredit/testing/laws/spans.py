"""Laws of place: which tokens may carry a coefficient, and how a cut of the batch must not matter."""

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope, field_kinds
from qredit.core.objective import Credited, Objective, sum_terms
from qredit.testing.batches import (
    insert_observations,
    make_batch_for,
    pad_columns,
    permute_rows,
    renumber_groups,
    replace_fields,
)
from qredit.testing.laws.assertions import assert_close, assert_each_close, assert_zero
from qredit.testing.laws.subject import Subject

SEEDS = range(2)


def nothing_on_forced_tokens(subject: Subject) -> None:
    """Tokens that were neither drawn nor part of the gold answer, and padding, carry exactly 0."""
    for seed in SEEDS:
        batch = make_batch_for(subject.objective, seed)
        assert_zero(subject.objective.credit(batch)[~batch.trainable], "coefficient on a forced or empty place")


def nothing_on_observations(subject: Subject) -> None:
    """What an environment wrote carries exactly 0, of coefficient and of slope, and its content changes nothing."""
    for seed in SEEDS[:1]:
        plain = make_batch_for(subject.objective, seed)
        one, other = (insert_observations(plain, seed, content) for content in (1, 2))
        assert one.observation is not None
        credited = subject.objective.evaluate(one)
        assert_zero(credited.value[one.observation.expand_as(credited.value)], "coefficient on an observation")
        slope = _slope(subject.objective, one, [slice(None)])
        assert_zero(slope.transpose(1, 2)[one.observation], "slope of the loss on an observation")
        assert_each_close(subject.objective.credit(other), subject.objective.credit(one))
        assert_close(_slope(subject.objective, other, [slice(None)]), slope, what="slopes with another observation")


def rows_may_be_permuted(subject: Subject) -> None:
    """Permuting the rows permutes the coefficients."""
    for seed in SEEDS:
        batch = make_batch_for(subject.objective, seed)
        order = torch.randperm(len(batch.group), generator=torch.Generator().manual_seed(seed))
        credit = subject.objective.credit(batch)
        assert_each_close(subject.objective.credit(permute_rows(batch, order)), credit[order])


def padding_changes_nothing(subject: Subject) -> None:
    """Empty columns, whatever stands in them, change neither coefficients nor loss nor gradient."""
    for seed in SEEDS:
        batch = make_batch_for(subject.objective, seed)
        wide = pad_columns(batch, 3)
        width = batch.mask.shape[1]
        padded, plain = (subject.objective.evaluate(each) for each in (wide, batch))
        assert_each_close(padded.value[:, :width], plain.value)
        whole = [slice(None)]
        slope = _slope(subject.objective, wide, whole, padded)[..., :width]
        assert_close(slope, _slope(subject.objective, batch, whole, plain))


def group_numbers_are_names(subject: Subject) -> None:
    """Renumbering the groups changes nothing. An objective that draws is exempt: draws are a function of the number."""
    for seed in SEEDS:
        batch = make_batch_for(subject.objective, seed)
        numbers = torch.tensor([7, -3, 40, 5])
        assert_each_close(subject.objective.credit(renumber_groups(batch, numbers)), subject.objective.credit(batch))


def gradient_is_the_same_in_micro_batches(subject: Subject) -> None:
    """A step cut into whole groups, their credit evaluated apart unless a stage has batch scope, has one gradient."""
    for seed in SEEDS:
        batch = make_batch_for(subject.objective, seed)
        groups = [batch.group == number for number in batch.group.unique()]
        whole = _slope(subject.objective, batch, [slice(None)])
        assert_close(_slope(subject.objective, batch, groups), whole, what="gradients of the cut and the whole step")


def gradient_is_the_same_in_row_chunks(subject: Subject) -> None:
    """Forward and backward over chunks of rows, the credit evaluated before, give the gradient of the whole."""
    for seed in SEEDS:
        batch = make_batch_for(subject.objective, seed)
        credited = subject.objective.evaluate(batch)
        starts = range(0, len(batch.group), 4)
        chunks = [slice(start, start + 4) for start in starts]
        whole = _slope(subject.objective, batch, [slice(None)], credited)
        assert_close(_slope(subject.objective, batch, chunks, credited), whole, what="gradients of chunks and whole")


def has_the_slopes_of_its_loss(subject: Subject) -> None:
    """The slopes in log p and in the entropies are those of the loss written plainly, on random batches."""
    assert subject.loss is not None
    for seed in SEEDS:
        batch = make_batch_for(subject.objective, seed)
        at = _differentiable(batch)
        live = replace_fields(batch, {name: value for name, value in at.items() if name != "logp"})
        expected = torch.autograd.grad(subject.loss(at["logp"], live), tuple(at.values()), materialize_grads=True)
        assert_close(_slope(subject.objective, batch, [slice(None)]), torch.stack(expected, 1), 1e-5)


def _slope(
    objective: Objective, batch: RolloutBatch, parts: list[slice] | list[Tensor], credited: Credited | None = None
) -> Float[Tensor, "B F T"]:
    """∂loss/∂(logp, entropies) of a step run in parts: numerators summed, then divided by the summed denominators."""
    if objective.scope >= Scope.BATCH and credited is None:
        credited = objective.evaluate(batch)
    at = _differentiable(batch)
    numerators: dict[str, Tensor] = {}
    denominators: dict[str, float] = {}
    for part in parts:
        rows = batch.select(part)
        own = objective.evaluate(rows) if credited is None else credited.select(part)
        live = replace_fields(rows, {name: value[part] for name, value in at.items() if name != "logp"})
        for name, sums in objective.numerators(at["logp"][part], live, own).items():
            numerators[name] = numerators.get(name, torch.zeros((), dtype=torch.float64)) + sums
        for name, count in objective.denominators(rows, own).items():
            denominators[name] = denominators.get(name, 0.0) + count
    loss = sum_terms(numerators, denominators)
    return torch.stack(torch.autograd.grad(loss, tuple(at.values()), materialize_grads=True), 1)


def _differentiable(batch: RolloutBatch) -> dict[str, Float[Tensor, "B T"]]:
    """The fields that a loss may be differentiable in, each a leaf of its own; 0 in padding."""
    further = {"kl", "forward_kl", "tempered_kl", "nucleus_entropy"}
    names = [n for n in batch.present if n in ("logp", "entropy") or field_kinds({n}) & further]
    return {name: torch.where(batch.mask, batch.require(name, "law"), 0.0).requires_grad_() for name in names}
