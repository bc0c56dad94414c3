"""Where macro actions begin, as numbers of tokens."""

from collections.abc import Sequence

from qredit.rollouts.trajectory import Trajectory


def list_sampled(trajectory: Trajectory) -> list[bool]:
    """For each token behind the prompt, whether the policy drew it."""
    return [segment.sampled for segment in trajectory.segments for _ in segment.ids]


def number_macros(begins: Sequence[bool], sampled: Sequence[bool]) -> list[int]:
    """The number of each token's macro action: a new one wherever one begins, and at the last sampled token.

    The last token stands alone so that the reward on it is not averaged with tokens that got none. -1 on tokens that
    were not sampled; a macro that is interrupted by them goes on behind them.

    Args:
        begins: of each token, whether a macro begins there.
        sampled: of each token, whether the policy drew it.
    """
    last = max((place for place, drawn in enumerate(sampled) if drawn), default=-1)
    found, number = [], -1
    for place, (new, drawn) in enumerate(zip(begins, sampled, strict=True)):
        number += drawn and (new or place == last or number < 0)
        found.append(number if drawn else -1)
    return found
