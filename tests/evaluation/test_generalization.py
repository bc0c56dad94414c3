"""SPECS's factor: worked numbers, what it is a mean of, and gains that it says nothing of."""

import pytest

from qredit.evaluation.generalization import generalization_factor
from qredit.utils.errors import QreditError


@pytest.mark.parametrize(("inside", "outside", "factor"), [(0.1, 0.08, 0.083), (0.2, 0.02, 0.024), (0.3, 0.3, 0.3)])
def test_the_factor_has_the_worked_numbers(inside, outside, factor):
    assert generalization_factor(inside, outside) == pytest.approx(factor, abs=5e-4)


def test_a_gain_elsewhere_weighs_more():
    assert generalization_factor(0.1, 0.2) > generalization_factor(0.2, 0.1)
    assert generalization_factor(0.0, 0.5) == generalization_factor(0.5, 0.0) == 0.0


@pytest.mark.parametrize("gains", [(-0.1, 0.2), (0.2, -0.1), (1.5, 0.1), (float("nan"), 0.1)])
def test_losses_have_no_factor(gains):
    with pytest.raises(QreditError, match="must be a share from 0 to 1"):
        generalization_factor(*gains)
