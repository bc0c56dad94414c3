"""The pocket language: names of two syllables and a few phrases that make readable English sentences.

Every text of a pocket task, its prompts, rationales and answers, is made of these pieces and of nothing else.
"""

import random
from collections.abc import Sequence

from qredit.utils.errors import QreditError

SYLLABLES = (
    *("ba", "de", "fi", "go", "hu", "ja", "ke", "lo", "mi", "nu", "pa", "re"),
    *("so", "ti", "vu", "wa", "ze", "do", "fa", "gi", "ku", "le", "mo", "ru"),
)
DIGITS = tuple("0123456789")
PUNCTUATION = (".", "?", "-", "\n", " ")
FACTS = (" lives in ", " lies in ", " belongs to ")
FACT_PIECES = (" lives", " lies", " belongs", " in ", " to ")
QUESTIONS = (
    *("Which country does ", " live in"),
    *("Which league does the country of ", " belong to"),
    *("What is the change of ", "What is the total of "),
)
TABLE = ("Sales by item", "item", " | ", ": ", " + ", " - ", " = ")
INSTRUCTIONS = ("Use the facts", "Use the table", "Answer with the name alone", "Answer with the number alone")
FILLERS = ("Well, ", "Hmm, ", "Let me see, ", "Maybe ")
AS_A_SENTENCE = ("It is ", " is it")

PIECES = (
    *(syllable.capitalize() for syllable in SYLLABLES),
    *SYLLABLES,
    *DIGITS,
    *PUNCTUATION,
    *FACT_PIECES,
    *QUESTIONS,
    *TABLE,
    *INSTRUCTIONS,
    *FILLERS,
    *AS_A_SENTENCE,
)


def draw_name(rng: random.Random) -> str:
    """A name of two syllables, such as "Tilo"; there are 576 of them."""
    return rng.choice(SYLLABLES).capitalize() + rng.choice(SYLLABLES)


def are_distinct(names: Sequence[str]) -> bool:
    """Whether no two names begin alike and no two end alike, so that each syllable tells which name is meant.

    Scenes are made of such names: small models learn to copy them in minutes instead of hours.
    """
    starts, ends = {name[:2] for name in names}, {name[2:] for name in names}
    return len(starts) == len(ends) == len(names)


def draw_names(rng: random.Random, count: int) -> list[str]:
    """That many names, apart from each other.

    Raises:
        QreditError: there are not so many.
    """
    if not 0 <= count <= len(SYLLABLES):
        raise QreditError(f"{count} names without a common syllable are wanted, and there are {len(SYLLABLES)}")
    starts, ends = rng.sample(SYLLABLES, count), rng.sample(SYLLABLES, count)
    return [start.capitalize() + end for start, end in zip(starts, ends, strict=True)]
