"""The policy shown the gold answer: how a prompt is written with it, and how many of a group's rationales it draws.

A policy that sees the answer y* draws rationales that its plain prompt would hardly ever give. Drawn so, and weighed by
how probable they are under the plain prompt (`core/importance.py`), they estimate the same expectation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qredit.utils.errors import QreditError

HINT_TEMPLATE = (
    "{prompt}\n\n(The correct answer is {answer}. Think step by step towards this answer, as if nobody had told you.)"
)
"""What a prompt with its gold answer looks like unless another template is given. The wording is ours."""


@dataclass(frozen=True)
class hint:
    """The policy itself with the gold answer in its prompt, as a second source of a group's rationales.

    Args:
        share: λ, which part of a group's M rationales is drawn so, 0 ≤ λ < 1. Their number is k = round(λ·M), and the
            share that counts is k/M. 0 draws none.
        template: the prompt's text with the answer, which stand at {prompt} and {answer}. Of a chat it is the text of
            the last user message.

    Raises:
        QreditError: a share outside [0, 1), or a template that lacks one of the two places.
    """

    share: float
    template: str = HINT_TEMPLATE

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 <= self.share < 1:
            raise QreditError(
                f"share, the part of rationales drawn after a hint, must be at least 0 and less than 1, got "
                f"{self.share!r}: some must come from the plain prompt, so that the weights stay bounded"
            )
        check_template(self.template)

    def __repr__(self) -> str:
        template = "" if self.template == HINT_TEMPLATE else f", template={self.template!r}"
        return f"hint(share={self.share!r}{template})"

    def count(self, m: int) -> int:
        """How many of m rollouts are drawn after the hint.

        Raises:
            QreditError: fewer than two rollouts of one of the two sources; the baseline of each row rests on others of
                both.
        """
        k = round(self.share * m)
        if self.share and min(k, m - k) < 2:
            raise QreditError(
                f"{self.share:g} of {m} rollouts per prompt are {k} after the hint and {m - k} after the plain prompt; "
                f"each needs two at least. Give more rollouts per prompt, or a share between {2 / m:.2g} and "
                f"{1 - 2 / m:.2g}"
                if m >= 4
                else f"{m} rollouts per prompt cannot be shared between the hint and the plain prompt: each needs two "
                "at least"
            )
        return k


def check_template(template: str) -> None:
    """Refuse a template of a hint that does not show the prompt and the gold answer.

    Raises:
        QreditError: names the place that is missing.
    """
    missing = find_missing_places(template, ("answer", "prompt"))
    if missing:
        what = {"answer": "the gold answer", "prompt": "the prompt itself"}[missing[0]]
        raise QreditError(f"a hint's template must hold {{{missing[0]}}}, where {what} stands; got {template!r}")


def find_missing_places(template: str, names: Sequence[str]) -> list[str]:
    """The names whose place, such as {prompt}, a template lacks."""
    return [name for name in names if f"{{{name}}}" not in template]


def fill_places(template: str, given: Mapping[str, str]) -> str:
    """The template with a text in each place of its name; braces inside the texts stay as they are."""
    places = "|".join(map(re.escape, given))
    return re.sub(rf"\{{({places})\}}", lambda place: given[place[1]], template)


def fill_template(template: str, prompt: str, answer: str) -> str:
    """The template with a prompt and an answer in their places; braces inside them stay as they are.

    Args:
        template: with {prompt} and {answer}.
        prompt: text that is put in its place.
        answer: the reference answer.
    """
    return fill_places(template, {"prompt": prompt, "answer": answer})
