r"""The answer that a text ends with: in a box, after "####", after "the answer is", at the end of its conclusion."""

import re

from qredit.rewards.characters import convert_to_latex
from qredit.rewards.math_parsing import (
    MAX_CHARACTERS,
    MultipleValues,
    NamedValue,
    PlainWords,
    Reading,
    find_closing_brace,
    normalize_latex,
    normalize_words,
    parse_math,
)

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MARKED = re.compile(r"\b(?:answer|result|solution|value)s?\s*(?:(?:is|are|was|equals?)\b\s*:?|[:=])\s*", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])(?<!\b[Nn]o\.)\s+|\n+")
_CONCLUDED = re.compile(
    r"\b(?:so|thus|therefore|hence|that is|that means|i\.e\.|but|giving|gives|namely)\b,?\s*", re.IGNORECASE
)
# "C) Paris", "(C) 12", "C. 12": a letter with what it stands for, and no other letter.
_CHOICE = re.compile(r"(?:\(?([A-Ha-h])\)[:.]?|([A-H])[.:])\s+(?!.*(?:\b[A-H]\b|\b(?:or|and|not)\b))\S")
_REMARK = re.compile(r"\s*\([^()]*(?<![\\A-Za-z])[A-Za-z]{3}[^()]*\)\s*[.]?$")
_DENIED = re.compile(r"(?<=\S),\s*(?:and |but )?not\b[^,;]*$", re.IGNORECASE)
_WAY_OUT = re.compile(r"\b(?:or|maybe|perhaps|possibly|alternatively)\b", re.IGNORECASE)
_REASON = re.compile(r"(?<=\S),?\s*\b(?:since|because|as|where|for|after|which|who)\b.*$", re.IGNORECASE | re.DOTALL)
_COPULA = re.compile(r".*(?:\b(?:is|are|equals?|was|were|be)\b|(?<=[A-Za-z]):)\s+", re.IGNORECASE | re.DOTALL)
_FILLER = re.compile(
    r"^(?:in|at|on|exactly|just|simply|only|precisely|then|now|about|approximately|equal to|also)\s+", re.IGNORECASE
)
_DOUBT = re.compile(
    r"n't\b|\b(?:not?|never|neither|nor|either|or|between|if|unless|would|could|might|may|maybe|perhaps|possibly|wrong"
    r"|incorrect|rejected|instead|except|half|double|twice|triple|times|squared|cubed|plus|minus|divided|multiplied"
    r"|more|less|fewer|least|most|over|under|than|per cent of|percent of)\b|%\s*of\b", re.IGNORECASE,
)  # fmt: skip
_SUBJECT = re.compile(
    r"(.*?)\s+(?:is|are)\s+(?:the|my)?\s*(?:final |correct |right )*(?:answer|result|solution|correct|right)\W*",
    re.IGNORECASE | re.DOTALL,
)
_ONE_NUMBER = re.compile(r"(?<![\w.,/^:+*=-])[$£€]?-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?(?![\w/^+*=-]|[.,:]\d)")


def parse_answer(text: str) -> Reading | None:
    """What the answer of a model says, in the end; None where it says nothing or cannot be made out.

    A text with several answers is read as the list of them, which is no single value: nothing is won by naming many.
    """
    text = convert_to_latex(text)
    said = _in_boxes(text)
    if said is None and _BOX.search(text):  # cut off within its box
        return None
    if said is None and "####" in text:
        said = text.rpartition("####")[2]
    text = (said if said is not None else text).replace("**", " ").replace("__", " ").strip().strip("`")
    marked = list(_MARKED.finditer(text))
    if marked:
        found = _concluded(text[marked[-1].end() :])
        return found if found is not None else _subject(text)
    return _concluded(text)


def parse_gold(text: str) -> Reading | None:
    """What a gold answer says. No conclusion is drawn from its sentences; only "The answer is" is dropped."""
    text = convert_to_latex(text)
    said = _in_boxes(text)
    text = (said if said is not None else text.rpartition("####")[2]).replace("**", " ").strip()
    marked = _MARKED.search(text)
    return parse_math(normalize_latex(text[marked.end() :] if marked else text))


def _in_boxes(text: str) -> str | None:
    """What stands in the box; of several, all that differ, with commas between them; None where there is no box."""
    found: dict[str, None] = {}
    for box in _BOX.finditer(text):
        end = find_closing_brace(text, box.end() - 1)
        if end is not None and not _BOX.search(text, box.end(), end):
            found[text[box.end() : end].strip()] = None
    return ", ".join(found) if found else None


def _concluded(text: str) -> Reading | None:
    text = _DENIED.sub("", _without_remark(text))
    if len(text) <= MAX_CHARACTERS:
        whole = parse_math(normalize_latex(text))
        if _is_plain(whole):
            return whole
    said = _subject(text) or _sentence(text)
    if said is not None:
        return said
    return parse_math(normalize_latex(_SENTENCE.split(text.strip())[0])) if len(text) <= MAX_CHARACTERS else None


def _without_remark(text: str) -> str:
    """Without a remark in brackets at the end, but not where it offers another answer."""
    remark = _REMARK.search(text)
    return text if remark is None or _WAY_OUT.search(remark[0]) else text[: remark.start()]


def list_candidate_words(text: str) -> frozenset[str]:
    """The words that a text may say as its answer: all of it, its first sentence, and what follows "the answer is"."""
    text = convert_to_latex(text)
    said = _in_boxes(text)
    text = said if said is not None else text.replace("**", " ")
    marked = list(_MARKED.finditer(text))
    found = [text, text[marked[-1].end() :] if marked else text]
    found += [_SENTENCE.split(part.strip())[0] for part in found]
    short = [_DENIED.sub("", _without_remark(part)) for part in found if len(part) <= MAX_CHARACTERS]
    choices = [match[1] or match[2] for match in map(_CHOICE.match, map(str.strip, short)) if match]
    return frozenset([*(normalize_words(normalize_latex(part)) for part in short), *map(str.lower, choices)])


def _is_plain(reading: Reading | None) -> bool:
    """Whether a text was read as mathematics: words, and lists of words, may still hold a sentence."""
    if isinstance(reading, MultipleValues) and reading.kind == "list":
        return all(map(_is_plain, reading.members))
    if isinstance(reading, NamedValue):
        return _is_plain(reading.value)
    return reading is not None and not (isinstance(reading, PlainWords) and len(reading.text) > 1)


def _subject(text: str) -> Reading | None:
    """ "42 is the answer." """
    found = _SUBJECT.fullmatch(text.strip())
    said = parse_math(normalize_latex(found[1])) if found and len(found[1]) < MAX_CHARACTERS else None
    return said if _is_plain(said) else None


def _sentence(text: str) -> Reading | None:
    """The value at the end of the last sentence that holds a number or a formula."""
    sentences = [part for part in _SENTENCE.split(text.strip()) if re.search(r"[\d\\$]", part)]
    last = _DENIED.sub("", _without_remark(sentences[-1])) if sentences else ""
    if not last or len(last) > MAX_CHARACTERS:
        return None
    last = _REASON.sub("", _CONCLUDED.split(last)[-1].strip())
    link = _COPULA.match(last)
    if link:
        if _DOUBT.search(link[0]):
            return None
        return _value(last[link.end() :])
    return _value(last) or _computed(last) or _only_number(last)


def _value(text: str) -> Reading | None:
    said = parse_math(normalize_latex(_FILLER.sub("", text.strip())))
    return said if _is_plain(said) else None


def _computed(sentence: str) -> Reading | None:
    """What a calculation within a sentence comes to: "She sold 48 + 24 = 72 clips." """
    before, equals, after = sentence.rpartition("=")
    doubtful = _DOUBT.search(sentence) or re.search(r"\band\b", sentence)
    return _value(after) if equals and before.strip() and not doubtful else None


def _only_number(sentence: str) -> Reading | None:
    """The one number of a sentence without doubt, choice or arithmetic: "She has 8 apples left." """
    found = _ONE_NUMBER.findall(normalize_latex(sentence))
    if "\\" in sentence:  # a formula holds more than its one number
        return None
    words = re.findall(r"\b[a-z]{2,}\b", sentence)
    if len(found) != 1 or len(re.findall(r"\d+", sentence)) > len(re.findall(r"\d+", found[0])) or len(words) < 2:
        return None
    return None if _DOUBT.search(sentence) else parse_math(found[0])
