"""Cases of a parametrised test that carry a marker."""

import pytest


def e2e(*values: object):
    """A case that `make test` leaves to `make test-e2e`: another case of the same test stands for it there."""
    return pytest.param(*values, marks=pytest.mark.e2e)
