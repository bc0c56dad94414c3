"""Segments against plain loops over the tokens of each row."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit.stats.segment import Segments, suffix_min, suffix_sum


def drawn(seed, rows=4, width=9):
    generator = torch.Generator().manual_seed(seed)
    number = torch.randint(-1, 5, (rows, width), generator=generator) * 3
    counts = torch.rand(rows, width, generator=generator) < 0.8
    counts[0] = False
    value = torch.where(counts, torch.randn(rows, width, dtype=torch.float64, generator=generator), torch.nan)
    return number, counts, value


def members(number, counts, row):
    """The positions of each segment of a row, in the order of the segments' numbers."""
    found = {}
    for column in range(number.shape[1]):
        if counts[row, column] and number[row, column] >= 0:
            found.setdefault(int(number[row, column]), []).append(column)
    return [found[key] for key in sorted(found)]


@given(st.integers(0, 10**6))
def test_statistics_are_those_of_a_loop(seed):
    number, counts, value = drawn(seed)
    segments = Segments.of(number, counts)
    total, mean = segments.total(value), segments.mean(value)
    for row in range(len(number)):
        parts = members(number, counts, row)
        assert int(segments.exists[row].sum()) == len(parts)
        index, last, rank = [-1] * number.shape[1], [False] * number.shape[1], [0] * number.shape[1]
        for place, columns in enumerate(parts):
            own = value[row, columns]
            assert int(segments.size[row, place]) == len(columns)
            assert torch.allclose(total[row, place], own.sum())
            assert torch.allclose(mean[row, place], own.mean())
            last[columns[-1]] = True
            for position, column in enumerate(columns):
                index[column], rank[column] = place, position
        assert segments.index[row].tolist() == index
        assert segments.last[row].tolist() == last
        assert segments.rank[row].tolist() == rank
        assert not total[row, len(parts) :].any()


@given(st.integers(0, 10**6))
def test_what_follows_is_that_of_a_loop(seed):
    _, counts, value = drawn(seed)
    sums, least = suffix_sum(value, counts), suffix_min(value, counts)
    for row in range(len(value)):
        for column in range(value.shape[1]):
            rest = value[row, column:][counts[row, column:]]
            assert torch.allclose(sums[row, column], rest.sum())
            assert float(least[row, column]) == (float(rest.min()) if len(rest) else 0.0)


def test_a_segments_value_goes_to_its_tokens_alone():
    number = torch.tensor([[7, 7, -1, 9], [9, 9, 9, 9]])
    counts = torch.tensor([[True, True, True, True], [False, True, True, False]])
    segments = Segments.of(number, counts)
    assert segments.spread(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist() == [[1, 1, 0, 2], [0, 3, 3, 0]]


def test_rows_without_a_segment_have_none():
    segments = Segments.of(torch.full((2, 3), -1), torch.ones(2, 3, dtype=torch.bool))
    assert not segments.exists.any()
    assert not segments.last.any()
    assert not segments.total(torch.ones(2, 3)).any()
    empty = Segments.of(torch.zeros(2, 0, dtype=torch.long), torch.ones(2, 0, dtype=torch.bool))
    assert empty.total(torch.ones(2, 0)).tolist() == [[0.0], [0.0]]
    assert suffix_min(torch.ones(2, 0), torch.ones(2, 0, dtype=torch.bool)).shape == (2, 0)


def test_a_segment_knows_its_first_and_its_last_token():
    number = torch.tensor([[3, 3, -1, 5], [7, 7, 7, 7]])
    counts = torch.tensor([[True, True, True, True], [False, True, True, False]])
    segments = Segments.of(number, counts)
    value = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    assert segments.start.tolist() == [[0, 3], [1, -1]]
    assert segments.at_first(value).tolist() == [[1, 4], [6, 0]]
    assert segments.at_last(value).tolist() == [[2, 4], [7, 0]]
    assert segments.at_first(value[:, :0]).tolist() == [[0, 0], [0, 0]]
