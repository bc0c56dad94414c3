"""torch's threads for a while: whoever calls a command as a function goes on with its own number of them."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def compute_on(threads: int) -> Iterator[None]:
    """Compute on so many threads inside.

    Args:
        threads: at least 1.
    """
    import torch  # here: commands that show text import no heavy library

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
