"""Laws of a single credit stage: homogeneous where it is linear, and silent outside its span."""

import torch

from qredit.core.chain import Coefficient
from qredit.testing.batches import random_batch
from qredit.testing.laws.assertions import assert_each_close
from qredit.testing.laws.subject import StageSubject


def linear_stages_are_homogeneous(subject: StageSubject) -> None:
    """stage(λ·c) = λ·stage(c), for λ of either sign."""
    batch = random_batch(0, gold=True, said=False)
    value = torch.randn(len(batch.group), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    once = subject.stage(Coefficient(value), batch).value
    for scale in (-2.5, 1e-20, 1e20):
        assert_each_close(subject.stage(Coefficient(scale * value), batch).value, scale * once, 1e-12, 0.0)


def a_span_keeps_to_itself(subject: StageSubject) -> None:
    """Outside its span a confined stage leaves every coefficient as it was; inside it does something."""
    assert subject.span is not None
    batch = random_batch(0, gold=True, said=False)
    value = torch.randn(len(batch.group), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = value.expand(batch.mask.shape)
    after = subject.stage(Coefficient(value), batch).value.expand(batch.mask.shape)
    where = batch.span(subject.span)
    assert_each_close(after[~where], before[~where], 0.0, 0.0)
    if bool((after[where] == before[where]).all()):
        raise AssertionError(f"{subject} changes nothing on '{subject.span}' either")
