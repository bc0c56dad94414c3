"""A format reward of one's own, as a user writes it: is the answer one capitalised word, whichever it is?"""

import re
from collections.abc import Sequence
from typing import Any


def one_word(response: Sequence[str], **columns: Any) -> list[float]:
    """1 for an answer such as "Neru", 0 for anything else.

    Args:
        response: what follows the thinking of each rollout.
        columns: all else that a reward function receives.
    """
    return [float(re.fullmatch(r"\s*[A-Z][a-z]+\s*", answer) is not None) for answer in response]
