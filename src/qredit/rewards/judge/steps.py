"""Reasoning steps as runs of token ids: a blank line ends one."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_SENTENCE_END = re.compile(r"[!?\n]|\.(?!\d)")
_LONGEST_WAIT = 8  # tokens; a character is at most four bytes


def decode_pieces(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text that each token adds to what the tokens before it say; together they are the decoded text.

    A token that only begins a character adds "", the one that completes it adds it. Each token is decoded with its
    neighbours on the left, so that what depends on them, such as a leading space, is right.
    """

    def decoded(start: int, end: int) -> str:
        return str(tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    found: list[str] = []
    start = told = 0
    for end in range(1, len(ids) + 1):
        text = decoded(start, end)
        waits = text.endswith(_UNFINISHED) and end < len(ids) and end - told < _LONGEST_WAIT
        found.append("" if waits else text[len(decoded(start, told)) :])
        if not waits:
            start, told = told, end
    return found


def number_steps(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """The number of the reasoning step of each token, from 0.

    A step ends at a blank line: two line breaks with nothing but white space between them. The tokens of the blank
    line belong to the step that it ends. A token that holds both sides of one belongs to the step before it.
    """
    return _number_pieces(decode_pieces(ids, tokenizer))


def number_sentences(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """The number of the sentence of each token, from 0: one ends with a token that holds a full stop, ! ? or a break.

    A run of such tokens, such as "." and a line break, ends one sentence and not several. A decimal point ends none.
    """
    return _number_sentence_pieces(decode_pieces(ids, tokenizer))


def _number_sentence_pieces(pieces: Sequence[str]) -> list[int]:
    stops = {found.start() for found in _SENTENCE_END.finditer("".join(pieces))}
    edges = list(accumulate(map(len, pieces), initial=0))
    ends = [not stops.isdisjoint(range(start, end)) for start, end in pairwise(edges)]
    begins = [before and not here for before, here in zip([False, *ends], ends, strict=False)]
    return list(accumulate(map(int, begins)))


def _number_pieces(texts: Sequence[str]) -> list[int]:
    numbers = list(_numbers(texts))
    for place in reversed(range(len(numbers) - 1)):
        if texts[place] == "":  # the first bytes of a character belong where its last does
            numbers[place] = numbers[place + 1]
    return numbers


def _numbers(texts: Sequence[str]) -> Iterator[int]:
    number, breaks, begun = 0, 0, False
    for text in texts:
        own: int | None = None
        for character in text:
            if character.isspace():
                breaks += character == "\n"
                continue
            number += begun and breaks >= 2
            breaks, begun = 0, True
            own = number if own is None else own
        yield number if own is None else own


def split_step_texts(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text of each step, without white space around it."""
    texts = decode_pieces(ids, tokenizer)
    return join_step_texts(texts, _number_pieces(texts))


def join_step_texts(pieces: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """The text of each step, without white space around it.

    Args:
        pieces: the text of each token.
        numbers: the step of each, from 0.
    """
    found = [""] * (max(numbers, default=-1) + 1)
    for number, text in zip(numbers, pieces, strict=True):
        found[number] += text
    return [text.strip() for text in found]


STEPS: Mapping[str, Callable[[Sequence[int], Any], list[int]]] = {
    "blank_lines": number_steps,
    "sentences": number_sentences,
}
"""What ends a step, by name."""
_SPLITS: Mapping[str, Callable[[Sequence[str]], list[int]]] = {
    "blank_lines": _number_pieces,
    "sentences": _number_sentence_pieces,
}


def split_text(text: str, by: str) -> list[str]:
    """The steps of a text with the white space around them: joined, they are the text. A blank one has none.

    Args:
        text: such as a rationale.
        by: what ends a step, a name in `STEPS`.
    """
    numbers = iter(_SPLITS[by](text))
    found: list[str] = []
    for part in ("".join(characters) for _, characters in groupby(text, lambda _: next(numbers))):
        if found and not (part.strip() and found[-1].strip()):
            found[-1] += part  # white space alone is no step
        else:
            found.append(part)
    return found if text.strip() else []


def place_at_step_ends(numbers: Sequence[int], scores: Sequence[float]) -> list[float]:
    """Each step's score on its last token, 0 on all others. Numbers below 0 are of no step."""
    found = [0.0] * len(numbers)
    for step, place in {number: place for place, number in enumerate(numbers)}.items():
        if step >= 0:
            found[place] = float(scores[step])
    return found


def mark_steps(numbers: Sequence[int], chosen: Collection[int]) -> list[bool]:
    """Whether each token lies in one of the chosen steps."""
    return [number >= 0 and number in chosen for number in numbers]
