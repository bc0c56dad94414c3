"""From a record's pieces to the text of a prompt, in either style."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.tasks.base import Style


@dataclass(frozen=True)
class Wording:
    """What the warm style says beside the input: the task in a sentence or two, and how to write the answer."""

    task: str
    answer: str


MULTI_HOP = Wording(
    task="Here are several passages, each with its title. Answer the question by combining facts from more than one "
    "of them; most of the passages do not matter.",
    answer="Think step by step. Then give the final answer alone, in as few words as possible: a name, a date, a "
    "number, or yes or no.",
)


def prompt(style: Style, wording: Wording, question: str, context: Sequence[str] = ()) -> str:
    """The prompt: "cold" is the lines of context and the question alone; "warm" puts the wording around them."""
    if style == "cold":
        return "\n".join([*context, question])
    return "\n\n".join([wording.task, *filter(None, ["\n".join(context)]), f"Question: {question}", wording.answer])


def passage(title: str, text: str) -> str:
    """One passage on one line."""
    return f"{title}: {' '.join(text.split())}"
