"""Prompts with a hint for groups that failed: the gold answer itself, or a hint that the model writes from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qredit.core.hint import HINT_TEMPLATE, check_template, fill_places, fill_template, find_missing_places
from qredit.rollouts.format import Prompt
from qredit.rollouts.hinted_prompt import show_answer
from qredit.utils.errors import QreditError, look_up

SHOW_TEMPLATE = "{prompt}\n\nHere is a hint to help you:\n{hint}"
"""A prompt with a hint that was written; the second half is SAGE's (recipe/hint/hint_trainer.py)."""
ASK_TEMPLATE = (
    "{prompt}\n\n(The correct answer is {answer}. Do not solve this, and do not give the answer away. Write KIND for a "
    "student who does not know the answer.)"
)
"""How a hint is asked for; the wording is ours. SAGE asks for all levels at once, in JSON, from a whole solution."""
KINDS = (
    "a minimal hint, which points to the key idea alone",
    "a hint that gives the direction and a step on the way",
    "a detailed hint, which leaves only the end to the student",
)
"""SAGE's three levels, from the least to the most that is told."""
GOLD, SELF = "gold", "self"


@dataclass(frozen=True)
class HintLevel:
    """One kind of hint.

    Attributes:
        ask: the request for a hint, with {prompt} and {answer}; None where the answer itself is shown.
        show: the prompt with the hint: {prompt}, and {hint}, or {answer} where nothing is asked for.
    """

    ask: str | None
    show: str

    def show_gold(self, prompt: Prompt, answer: str) -> Prompt:
        """The prompt with the gold answer shown.

        Raises:
            QreditError: messages that cannot take it.
        """
        return show_answer(prompt, answer, lambda text, gold: fill_template(self.show, text, gold))

    def ask_for_hint(self, prompt: Prompt, answer: str) -> Prompt:
        """The request for a hint.

        Raises:
            QreditError: messages that cannot take it.
        """
        assert self.ask is not None
        template = self.ask
        return show_answer(prompt, answer, lambda text, gold: fill_template(template, text, gold))

    def show_hint(self, prompt: Prompt, hint: str) -> Prompt:
        """The prompt with a hint that was written.

        Raises:
            QreditError: messages that cannot take it.
        """
        return show_answer(prompt, hint, lambda text, told: fill_places(self.show, {"prompt": text, "hint": told}))


def make_hint_levels(kind: str, template: str | None = None) -> tuple[HintLevel, ...]:
    """The levels of a kind of hint.

    Args:
        kind: "gold" shows the answer; "self" lets the model write a hint from it, at three levels.
        template: the prompt with the hint in place of the usual one: {prompt} and {answer}, or {prompt} and {hint}.

    Raises:
        QreditError: another kind, or a template without its places.
    """
    make = look_up("hint_failed", kind, _LEVELS)
    return make(template)


def _gold(template: str | None) -> tuple[HintLevel, ...]:
    show = HINT_TEMPLATE if template is None else template
    check_template(show)
    return (HintLevel(None, show),)


def _self(template: str | None) -> tuple[HintLevel, ...]:
    show = SHOW_TEMPLATE if template is None else template
    missing = find_missing_places(show, ("prompt", "hint"))
    if missing:
        raise QreditError(f"a template of hint_failed='{SELF}' must hold {{{min(missing)}}}; got {show!r}")
    return tuple(HintLevel(ASK_TEMPLATE.replace("KIND", kind), show) for kind in KINDS)


_LEVELS: Mapping[str, Callable[[str | None], tuple[HintLevel, ...]]] = {GOLD: _gold, SELF: _self}
