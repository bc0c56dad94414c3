"""Seconds that are left: a further round is begun where one as long as the last still fits."""

import time
from collections.abc import Callable


def fits_another(end: float) -> Callable[[], bool]:
    """What is asked between rounds, from the beginning of the first: whether a round like the last ends before `end`.

    Args:
        end: by `time.monotonic`.
    """
    begun = time.monotonic()

    def lasts() -> bool:
        nonlocal begun
        now = time.monotonic()
        last, begun = now - begun, now
        return now + last <= end

    return lasts
