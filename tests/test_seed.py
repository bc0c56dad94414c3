"""Seeds: streams of draws lie apart, and where they always were."""

from qredit.utils.seed import BEFORE, EVALUATION, FURTHER


def test_streams_of_draws_do_not_overlap():
    """Evaluation and further prompts take a hash below their own start: each ends where the next begins."""
    assert 2 * EVALUATION <= FURTHER
    assert 2 * FURTHER <= BEFORE


def test_streams_are_where_they_always_were():
    """Other starts would give other rollouts for the same seed."""
    assert (EVALUATION, FURTHER, BEFORE) == (1 << 40, 1 << 41, 1 << 42)
