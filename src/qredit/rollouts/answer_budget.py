"""How many tokens of a completion are kept for the answer where nobody says."""

DEFAULT_ANSWER_BUDGET = 128


def cap_answer_budget(answer: int, total: int) -> int:
    """A default answer budget inside a completion of `total` tokens: at most half of it, and at least one token."""
    return min(answer, max(total // 2, 1))
