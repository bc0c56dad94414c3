"""A process of a run that has ended while the others went on: what they meet, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from qredit.utils.errors import QreditError

_SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
)  # gloo's, which has no class of its own


def is_lost_process(error: RuntimeError) -> bool:
    """Whether a collective failed because another process is no longer there."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in _SIGNS)


@contextmanager
def report_lost_process(how_to_go_on: str) -> Iterator[None]:
    """Inside, the end of another process is an error of one line.

    Args:
        how_to_go_on: what to do then.

    Raises:
        QreditError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        raise QreditError(
            "another process of this run has ended, so this one ends, too. What ended it stands in its own output. "
            f"{how_to_go_on}"
        ) from error
