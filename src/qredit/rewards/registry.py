"""The scorers by name, and how one becomes a reward function for a trainer."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from qredit.rewards.answer_scorer import Scorer
from qredit.rewards.column_reward import get_text
from qredit.rewards.math_equal import are_same_math, is_math, math_equal, normalize_math
from qredit.rewards.numeric import (
    find_last_number,
    is_numeric,
    last_number,
    normalize_last_number,
    normalize_number,
    numeric,
)
from qredit.rewards.text import compose_accents, exact_match, f1, normalize_squad, normalized_exact_match, substring
from qredit.rewards.thinking import closed_thinking, strip_thinking
from qredit.utils.errors import QreditError, look_up
from qredit.utils.extras import require_extras

REGISTRY: Mapping[str, Scorer] = MappingProxyType(
    {
        scorer.name: scorer
        for scorer in (
            Scorer("exact_match", "the gold answer, letter for letter", exact_match, normal_form=compose_accents),
            Scorer(
                "normalized_exact_match",
                "equal without case, punctuation and articles",
                normalized_exact_match,
                normal_form=normalize_squad,
            ),
            Scorer("f1", "token F1 of HotPotQA and MuSiQue", f1, normal_form=normalize_squad),
            Scorer(
                "substring",
                "the gold answer occurs in the output (evaluation of arXiv 2604.25907)",
                substring,
                normal_form=compose_accents,
            ),
            Scorer(
                "numeric", "the same number within 0.5 %, or the same yes or no", numeric, is_numeric, normalize_number
            ),
            Scorer(
                "last_number",
                "the last number in the output is the gold answer (lenient, as GSM8K's flexible match)",
                last_number,
                lambda gold: find_last_number(gold) is not None,
                normalize_last_number,
            ),
            Scorer(
                "math_equal",
                "the same mathematical answer; formulas by math-verify",
                math_equal,
                is_math,
                normalize_math,
                are_same_math,
                extras=("math",),
            ),
            Scorer(
                "format",
                "thinking closed once, then an answer",
                closed_thinking,
                lambda gold: True,
                reads_gold=False,
            ),
        )
    }
)


def get(name: str) -> Scorer:
    """The scorer of that name.

    Raises:
        QreditError: there is none.
    """
    return look_up("reward", name, REGISTRY)


def make_reward_function(name: str) -> Callable[..., list[float]]:
    """The scorer as a TRL reward function, named `name` in its logs.

    It is called with prompts, completions, completion_ids and the data set's columns, each a list of one item per row.
    It reads the columns

    - response: the sampled answer, the text after thinking. Without it, the completion (or the last message of a
      chat) is cut after its thinking; see `strip_thinking`.
    - answer: the gold answer. aliases: other right answers of each row, or None.

    Returns one number per row; the function it returns raises QreditError where there is no column `answer`.

    Raises:
        QreditError: there is no such scorer, or an extra that it needs is not installed.
    """
    scorer = get(name)
    require_extras(f"reward '{name}'", *scorer.extras)

    def reward(
        *,
        completions: Sequence[Any],
        response: Sequence[str] | None = None,
        answer: Sequence[str] | None = None,
        aliases: Sequence[Sequence[str] | None] | None = None,
        **columns: Any,
    ) -> list[float]:
        if answer is None and scorer.reads_gold:
            raise QreditError(f"reward '{name}' needs a column 'answer'; there are: {', '.join(sorted(columns))}")
        said = (
            response if response is not None else [strip_thinking(get_text(completion)) for completion in completions]
        )
        right = answer if answer is not None else [""] * len(said)
        others = aliases if aliases is not None else [None] * len(right)
        rows = zip(said, right, others, strict=True)
        return [scorer(text, _golds(gold, more)) for text, gold, more in rows]

    reward.__name__ = name
    reward.reads_gold = scorer.reads_gold  # type: ignore[attr-defined]
    return reward


def _golds(answer: str, aliases: Sequence[str] | None) -> tuple[str, ...]:
    """Answer and aliases; an alias column that holds plain strings has one alias per row, not one per letter."""
    return (answer, aliases) if isinstance(aliases, str) else (answer, *(aliases or ()))
