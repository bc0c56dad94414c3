"""Laws of a single credit stage: what it reads, finite, homogeneous where it is linear, silent outside its span."""

import torch
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient
from qredit.testing.batches import make_batch_for
from qredit.testing.laws.assertions import assert_each_close, assert_finite
from qredit.testing.laws.needs import check_reads
from qredit.testing.laws.subject import StageSubject
from qredit.testing.laws.values import make_degenerate_batches


def stages_read_what_they_need(subject: StageSubject) -> None:
    """Without the fields it does not need nothing changes; without one that it needs it is refused by name."""
    check_reads(subject.stage, lambda batch: _credit(subject, _right_and_wrong(batch), batch))


def stages_are_finite(subject: StageSubject) -> None:
    """No NaN and no infinity on groups that have nothing to compare, in the batch or in what the stage is given."""
    batch = make_batch_for(subject.stage, 0)
    for name, degenerate in make_degenerate_batches(batch).items():
        assert_finite(_credit(subject, _right_and_wrong(degenerate), degenerate), name)
    given = _right_and_wrong(batch)
    for name, coefficient in {
        "given 1 everywhere": Coefficient(torch.ones_like(given.value)),
        "given 0 everywhere": Coefficient(torch.zeros_like(given.value)),
        "nothing is kept": Coefficient(given.value, keep=torch.zeros_like(given.value, dtype=torch.bool)),
    }.items():
        assert_finite(_credit(subject, coefficient, batch), name)


def linear_stages_are_homogeneous(subject: StageSubject) -> None:
    """stage(λ·c) = λ·stage(c), for λ of either sign."""
    batch = make_batch_for(subject.stage, 0)
    value = _normal(batch)
    once = subject.stage(Coefficient(value), batch).value
    for scale in (-2.5, 1e-20, 1e20):
        assert_each_close(subject.stage(Coefficient(scale * value), batch).value, scale * once, 1e-12, 0.0)


def a_span_keeps_to_itself(subject: StageSubject) -> None:
    """Outside its span a confined stage leaves every coefficient as it was; inside it does something."""
    assert subject.span is not None
    batch = make_batch_for(subject.stage, 0)
    value = _normal(batch)
    before = value.expand(batch.mask.shape)
    after = subject.stage(Coefficient(value), batch).value.expand(batch.mask.shape)
    where = batch.span(subject.span)
    assert_each_close(after[~where], before[~where], 0.0, 0.0)
    if bool((after[where] == before[where]).all()):
        raise AssertionError(f"{subject} changes nothing on '{subject.span}' either")


def _credit(subject: StageSubject, coefficient: Coefficient, batch: RolloutBatch) -> Tensor:
    return subject.stage(coefficient, batch).spread(batch)


def _right_and_wrong(batch: RolloutBatch) -> Coefficient:
    """1 and 0 in turn: some stages take no other numbers."""
    return Coefficient((torch.arange(len(batch.group)) % 2).double()[:, None])


def _normal(batch: RolloutBatch) -> Tensor:
    return torch.randn(len(batch.group), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
