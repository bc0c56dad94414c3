"""Where macro actions begin, as numbers of tokens."""

from collections.abc import Sequence
from itertools import accumulate


def number_macros(begins: Sequence[bool], sampled: Sequence[bool]) -> list[int]:
    """The number of each token's macro action: a new one wherever one begins, and at the last sampled token.

    The last token stands alone so that the reward on it is not averaged with tokens that got none. -1 on tokens that
    were not sampled; a macro that is interrupted by them goes on behind them.

    Args:
        begins: of each sampled token, in order, whether a macro begins there; the first one does.
        sampled: of each token, whether the policy drew it.
    """
    last = len(begins) - 1
    numbers = accumulate((new or place == last for place, new in enumerate(begins[1:], start=1)), initial=0)
    return [next(numbers) if drawn else -1 for drawn in sampled]
