"""Seeds: streams of draws lie apart, and where they always were."""

from qredit.utils.seed import DYNAMIC_SAMPLING_STREAM, EVALUATION_STREAM, INITIAL_Q_STREAM


def test_streams_of_draws_do_not_overlap():
    """Evaluation and further prompts take a hash below their own start: each ends where the next begins."""
    assert 2 * EVALUATION_STREAM <= DYNAMIC_SAMPLING_STREAM
    assert 2 * DYNAMIC_SAMPLING_STREAM <= INITIAL_Q_STREAM


def test_streams_are_where_they_always_were():
    """Other starts would give other rollouts for the same seed."""
    assert (EVALUATION_STREAM, DYNAMIC_SAMPLING_STREAM, INITIAL_Q_STREAM) == (1 << 40, 1 << 41, 1 << 42)
