"""Scorers that compare strings: as they are, or normalised as SQuAD and HotPotQA do."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from qredit.rewards.answer_scorer import score_best

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WHOLE = frozenset({"yes", "no", "noanswer"})


def normalize_answer(text: str) -> str:
    """SQuAD's normal form: lower case, ASCII punctuation deleted, a/an/the deleted, spaces squeezed, in this order.

    The order matters: punctuation is deleted, not replaced by a space, so "A.I." is "ai" and keeps its first letter.

    >>> normalize_answer("The  A.I. of an  'Eagle'!")
    'ai of eagle'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def compose_accents(text: str) -> str:
    """`text` without white space around it, its accents composed (NFC): the same letters in the same code points.

    The official scripts of SQuAD, HotPotQA and MuSiQue do not do this, so that there "é" may differ from "é".
    """
    return unicodedata.normalize("NFC", text.strip())


def normalize_squad(text: str) -> str:
    """`normalize_answer` of the composed text; the text itself where nothing is left of it."""
    text = compose_accents(text)
    return normalize_answer(text) or text


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1 where the prediction, without the white space around it, is a gold, letter for letter (compared in NFC)."""
    return score_best(_equal, prediction, golds)


def normalized_exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1 where prediction and a gold have the same normal form: the exact match of SQuAD, HotPotQA and MuSiQue.

    Differs from them in one case: where a normal form is empty ("The", "?!"), the strings themselves must be equal.
    The official scripts would let "the" match the gold "A".
    """
    return score_best(_normally_equal, prediction, golds)


def f1(prediction: str, golds: Sequence[str]) -> float:
    """The token F1 of HotPotQA and MuSiQue: harmonic mean of precision and recall over token multisets, best gold.

    An answer that is yes, no or noanswer is all or nothing (HotPotQA's rule): "yes it was" earns nothing on "yes".
    Where a normal form has no tokens the score is equality, as in `normalized_exact_match`.
    """
    return score_best(_token_f1, prediction, golds)


def substring(prediction: str, golds: Sequence[str]) -> float:
    """1 where a gold occurs inside the prediction, letter for letter: the published evaluation of arXiv 2604.25907.

    Lenient: the gold "5" occurs in "15", and a prediction that lists everything matches everything. Evaluate with it;
    do not train on it.
    """
    return score_best(lambda prediction, gold: compose_accents(gold) in compose_accents(prediction), prediction, golds)


def _equal(prediction: str, gold: str) -> bool:
    return compose_accents(prediction) == compose_accents(gold)


def _normally_equal(prediction: str, gold: str) -> bool:
    predicted, wanted = normalize_answer(compose_accents(prediction)), normalize_answer(compose_accents(gold))
    return predicted == wanted if predicted and wanted else _equal(prediction, gold)


def _token_f1(prediction: str, gold: str) -> float:
    predicted, wanted = normalize_answer(compose_accents(prediction)), normalize_answer(compose_accents(gold))
    if not predicted or not wanted or _WHOLE & {predicted, wanted}:
        return float(_normally_equal(prediction, gold))
    left, right = predicted.split(), wanted.split()
    # 2PR / (P + R) with P = common / len(left) and R = common / len(right).
    return 2 * (Counter(left) & Counter(right)).total() / (len(left) + len(right))
