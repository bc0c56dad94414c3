"""The pocket language: names of two syllables and a few phrases that make readable English sentences.

Every text of a pocket task, its prompts, rationales and answers, is made of these pieces and of nothing else.
"""

import random

from qredit.errors import QreditError

SYLLABLES = tuple(["ba", "de", "fi", "go", "hu", "ja", "ke", "lo", "mi", "nu", "pa", "re", "so", "ti", "vu", "wa", "ze", "do", "fa", "gi", "ku", "le", "mo", "ru"])
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
    """A name of two syllables, such as "Talo"; there are 576 of them."""
    return rng.choice(SYLLABLES).capitalize() + rng.choice(SYLLABLES)


def draw_names(rng: random.Random, count: int) -> list[str]:
    """That many different names.

    Raises:
        QreditError: there are not so many.
    """
    if not 0 <= count <= len(SYLLABLES) ** 2:
        raise QreditError(f"{count} different names are wanted, and there are {len(SYLLABLES) ** 2}")
    names: dict[str, None] = {}
    while len(names) < count:
        names[draw_name(rng)] = None
    return list(names)
