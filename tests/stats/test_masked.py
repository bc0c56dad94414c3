"""Masked statistics against numpy on the tokens that count."""

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit.stats import masked


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    mask = torch.rand(5, 7, generator=generator) < 0.6
    mask[0] = False
    return torch.where(mask, value, torch.nan), mask


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_statistics_are_those_of_the_tokens_that_count(seed, level):
    value, mask = drawn(seed)
    kept = value[mask].numpy()
    assert float(masked.mean(value, mask)) == pytest.approx(kept.mean())
    assert torch.allclose(
        masked.z_score(value, mask)[mask], torch.tensor((kept - kept.mean()) / kept.std(ddof=1)), atol=1e-12
    )
    product = masked.covariance(value, 2 * value, mask)
    assert torch.allclose(product[mask], torch.tensor(2 * (kept - kept.mean()) ** 2))
    assert not product[~mask].any()
    for row, counts, found, middle in zip(
        value, mask, masked.row_quantile(value, mask, level), masked.row_mean(value, mask), strict=True
    ):
        own = row[counts].numpy()
        assert float(found) == pytest.approx(numpy.quantile(own, level) if len(own) else 0.0)
        assert float(middle) == pytest.approx(own.mean() if len(own) else 0.0)


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_top_share_holds_the_largest(seed, share):
    value, mask = drawn(seed)
    found = masked.select_row_top(value, mask, share)
    for row, counts, chosen in zip(value, mask, found, strict=True):
        wanted = math.ceil(share * int(counts.sum()) - 1e-9)
        assert sorted(row[chosen].tolist()) == sorted(row[counts].tolist())[int(counts.sum()) - wanted :]
    assert int(masked.select_top(value, mask, 3).sum()) == min(3, int(mask.sum()))


def test_equal_values_have_no_score_and_no_range():
    value, mask = torch.full((2, 3), 0.3), torch.tensor([[True, True, False], [True, False, False]])
    assert not masked.z_score(value, mask).any()
    assert not masked.rescale(value, mask).any()


def test_the_first_of_equals_is_taken():
    value, mask = torch.tensor([[1.0, 2.0, 2.0, 2.0]]), torch.tensor([[True, False, True, True]])
    assert masked.select_row_top(value, mask, 1 / 3).tolist() == [[False, False, True, False]]
    assert masked.select_top(value, mask, 2).tolist() == [[False, False, True, True]]


def test_a_hinge_band_is_zero_inside():
    value = torch.tensor([[0.5, 0.9, 1.5]], dtype=torch.float64)
    outside = masked.hinge_band(value, torch.tensor([[0.8]]).double(), torch.tensor([[1.2]]).double())
    assert outside[0].tolist() == pytest.approx([0.3, 0.0, 0.3])


def test_a_range_is_rescaled_to_one():
    value, mask = torch.tensor([[0.2, 0.6, 1.0, 9.0]]), torch.tensor([[True, True, True, False]])
    assert masked.rescale(value, mask)[0].tolist() == pytest.approx([0.0, 0.5, 1.0, 0.0])
    assert not masked.rescale(value, mask, least=1.0).any()


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_quantile_of_all_tokens_is_numpys(seed, level):
    value, mask = drawn(seed)
    assert float(masked.quantile(value, mask, level)) == pytest.approx(numpy.quantile(value[mask].numpy(), level))


def test_no_token_has_a_quantile_of_zero_and_is_constant():
    value, mask = torch.full((2, 3), torch.nan), torch.zeros(2, 3, dtype=torch.bool)
    assert float(masked.quantile(value, mask, 0.5)) == 0
    assert masked.is_constant(value, mask)


@pytest.mark.parametrize("number", [0.1, 0.3, 1e9 + 0.1])
def test_equal_values_leave_no_rounding_residue_to_be_scaled_up(number):
    value = torch.full((3, 7), number, dtype=torch.float64)
    assert not masked.z_score(value, torch.ones(3, 7, dtype=torch.bool)).any()
