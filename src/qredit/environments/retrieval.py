"""Documents that answer a query, by BM25."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_WORD = re.compile(r"\w+")


def find_documents(query: str, documents: Sequence[str], most: int) -> list[int]:
    """Places of the documents that share a word with a query, the best first; of equal ones the earlier first.

    Args:
        query: words, in any case.
        documents: texts.
        most: how many places at most.
    """
    words = split_words(query)
    if not words:
        return []
    scores = _make_index(tuple(documents)).get_scores(words).tolist()
    ranked = sorted(range(len(documents)), key=lambda place: (-scores[place], place))
    return [place for place in ranked[:most] if scores[place] > 0]


def split_words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=256)  # the rollouts of an example search the same documents, turn after turn
def _make_index(documents: tuple[str, ...]) -> Any:
    import bm25s  # type: ignore[import-untyped]  # here: an extra

    index = bm25s.BM25()
    index.index([split_words(document) for document in documents], show_progress=False)
    return index
