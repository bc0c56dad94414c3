"""A format reward of one's own, as a user writes it: is the answer one capitalised word, whichever it is?"""

import re

from qredit.rewards import Response


def one_word(response: Response) -> float:
    """1 for an answer such as "Neru", 0 for anything else.

    Args:
        response: what the model said.
    """
    return float(re.fullmatch(r"\s*[A-Z][a-z]+\s*", response.answer) is not None)
