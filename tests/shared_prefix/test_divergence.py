"""Divergences of next-token distributions: worked numbers, slopes by differences, and a temperature of each token."""

import math

import pytest
import torch

from qredit.shared_prefix.divergence import PLAIN, temper_by_distance
from qredit.shared_prefix.head import divergences

KINDS = sorted(PLAIN)
OWN, TEACHER = (torch.tensor([row], dtype=torch.float64).log() for row in ((0.5, 0.4, 0.1), (0.25, 0.25, 0.5)))


def near(*values, **how):
    return pytest.approx(list(values), **how)


def test_worked_divergences():
    """p = (.5, .4, .1), p' = (.25, .25, .5)."""
    expected = {
        "kl@": 0.5 * math.log(2) + 0.4 * math.log(1.6) + 0.1 * math.log(0.2),
        "forward_kl@": 0.25 * math.log(0.5) + 0.25 * math.log(0.625) + 0.5 * math.log(5),
        "hellinger@": math.sqrt(1 - math.sqrt(0.125) - math.sqrt(0.1) - math.sqrt(0.05)),
    }
    assert {name: float(kind.value(OWN, TEACHER)) for name, kind in PLAIN.items()} == pytest.approx(expected)


def heads(seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden, other = (torch.randn(5, width, generator=generator) for width in (4, 3))
    weight, bias, of_other = (torch.randn(*shape, generator=generator) for shape in ((7, 4), (7,), (7, 3)))
    return hidden, weight, bias, (other, of_other, None)


@pytest.mark.parametrize("name", KINDS)
def test_the_head_gives_value_and_slope(name):
    """T² · D at logits / (0.7 T), and its slope by autograd on the plain sum; a distance has none."""
    hidden, weight, bias, (other, of_other, _) = heads()
    own = torch.linspace(0.6, 1.6, 5)
    leaves = [value.clone().requires_grad_() for value in (hidden, weight, bias)]
    found = divergences(*leaves, (other, of_other, None), 0.7, PLAIN[name], own)
    again = [value.double().requires_grad_() for value in (hidden, weight, bias)]
    scores = (again[0] @ again[1].T + again[2], (other @ of_other.T).double())
    plain = PLAIN[name].value(*((each / (0.7 * own[:, None])).log_softmax(1) for each in scores)) * own.square()
    assert torch.allclose(found.double(), plain, atol=1e-5)
    slopes = torch.autograd.grad(found.sum(), leaves)
    if name == "hellinger@":
        assert not any(slope.any() for slope in slopes)
        return
    for slope, right in zip(slopes, torch.autograd.grad(plain.sum(), again), strict=True):
        assert torch.allclose(slope.double(), right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_nothing_where_policy_and_teacher_agree(name):
    hidden, weight, bias, _ = heads()
    leaf = hidden.clone().requires_grad_()
    found = divergences(leaf, weight, bias, (hidden, weight, bias), 1.0, PLAIN[name])
    assert torch.allclose(found, torch.zeros(5), atol=1e-3 if name == "hellinger@" else 1e-5)
    assert torch.allclose(torch.autograd.grad(found.sum(), leaf)[0], torch.zeros(5, 4), atol=1e-5)


def test_a_row_has_temperatures_of_its_own():
    """s = (.1, .2, .4), hardness .5: 1.350, 1, .741, as in the official code; another row does not move them."""
    distance = torch.tensor([0.1, 0.9, 0.2, 0.9, 0.4, 0.0, 0.0])
    row = torch.tensor([0, 1, 0, 1, 0, 2, 2])
    found = temper_by_distance(distance, row, 0.5)
    assert found[[0, 2, 4]].tolist() == near(1.350, 1.0, 0.741, abs=1e-3)
    assert found[[1, 3, 5, 6]].tolist() == near(1, 1, 1, 1), "all alike, and a median of 0"
    assert torch.equal(temper_by_distance(distance, row, 0.0), torch.ones(7))
