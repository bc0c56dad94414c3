"""What follows the thinking, and whether anything does."""

from collections.abc import Sequence

from qredit.rewards.answer_scorer import is_not_blank

OPEN, CLOSE = "<think>", "</think>"


def strip_thinking(text: str) -> str:
    """The text after the thinking; all of it where no tag occurs; "" where thinking is left open or comes twice.

    The opening tag may be missing: many chat templates put it in the prompt.
    """
    before, close, after = text.partition(CLOSE)
    if not close:
        return "" if OPEN in text else text
    well_formed = before.count(OPEN) <= 1 and OPEN not in after and CLOSE not in after
    return after if well_formed else ""


def closed_thinking(response: str, golds: Sequence[str]) -> float:
    """1 where thinking, if the text shows any, is closed once and something follows it. The golds are not looked at.

    Made for the response, the text after thinking, whose tags lie before it. A whole completion that never closes a
    thinking opened in the prompt looks like a response and cannot be told from one.
    """
    return float(is_not_blank(strip_thinking(response)))
