"""Prompts that are asked twice: within the training data, and in training as well as where a model is judged."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from qredit.tasks.base import Example
from qredit.tasks.normal_forms import normalize_prompt

_AT_ENDS = re.compile(r"(?<!\S)[\"'“”‘’(\[]+|[.,;:!?\"'“”‘’)\]]+(?!\S)")


@dataclass(frozen=True)
class Overlap:
    """How many prompts occur again. Loosely: without case, white space and punctuation at the ends of words.

    Attributes:
        trained: prompts of the training data.
        repeated: those that occurred before, letter for letter as `normalize_prompt` compares.
        repeated_loosely: the same loosely, the former among them.
        held_out: prompts that a model is judged by.
        leaked: those that are trained on, letter for letter.
        leaked_loosely: the same loosely, the former among them.
        first: id of the first of these; empty where there is none.
    """

    trained: int
    repeated: int
    repeated_loosely: int
    held_out: int
    leaked: int
    leaked_loosely: int
    first: str = ""

    def describe(self) -> str | None:
        """One line; None where nothing occurs again."""
        said = []
        if self.repeated_loosely:
            said.append(
                f"{self.repeated_loosely} of {self.trained} training prompts repeat an earlier one"
                f"{_exactly(self.repeated, self.repeated_loosely)}"
            )
        if self.leaked_loosely:
            said.append(
                f"{self.leaked_loosely} of {self.held_out} held-out prompts are trained on, first '{self.first}'"
                f"{_exactly(self.leaked, self.leaked_loosely)}"
            )
        return "; ".join(said) or None


def _exactly(exact: int, loosely: int) -> str:
    return "" if exact == loosely else f" ({exact} of them letter for letter, the others but for case and punctuation)"


def normalize_loosely(text: str) -> str:
    """The form in which prompts are nearly the same: no case, one space, no punctuation at the ends of words.

    Inside of words it stays, as in 3.5 and 3-4, and so do the signs of formulas.

    >>> normalize_loosely('Who wrote  "Emma"?')
    'who wrote emma'

    Args:
        text: as `normalize_prompt` gives it.
    """
    return " ".join(_AT_ENDS.sub(" ", text.casefold()).split())


def count_overlap(trained: Sequence[Example], held_out: Sequence[Example]) -> Overlap:
    """What of these data occurs again. What an answer is does not matter.

    Args:
        trained: the training data.
        held_out: what a model is judged by; an example that occurs there twice counts twice.
    """
    known = [_digest(one) for one in trained]
    asked = [_digest(one) for one in held_out]
    exact, loose = ({forms[kind] for forms in known} for kind in (0, 1))
    leaked = [one for one, forms in zip(held_out, asked, strict=True) if forms[1] in loose]
    return Overlap(
        trained=len(trained),
        repeated=len(known) - len(exact),
        repeated_loosely=len(known) - len(loose),
        held_out=len(held_out),
        leaked=sum(forms[0] in exact for forms in asked),
        leaked_loosely=len(leaked),
        first=leaked[0].id if leaked else "",
    )


def _digest(example: Example) -> tuple[bytes, bytes]:
    """Of a prompt's exact and of its loose form: prompts may be long, and there may be many."""
    text = normalize_prompt(example.prompt)
    forms = (text, normalize_loosely(text))
    return tuple(blake2b(form.encode(), digest_size=16).digest() for form in forms)  # type: ignore[return-value]
