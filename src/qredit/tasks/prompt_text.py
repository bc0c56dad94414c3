"""From a record's pieces to the text of a prompt, in either style."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qredit.tasks.base import Example, Passages, Style
from qredit.tasks.cells import Message
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class Wording:
    """What the warm style says beside the input: the task in a sentence or two, and how to write the answer."""

    task: str
    answer: str


_SHORT_ANSWER = (
    "Think step by step. Then give the final answer alone, in as few words as possible: a name, a date, a number, or "
    "yes or no."
)
MULTI_HOP: Mapping[Passages, Wording] = {
    "all": Wording(
        "Here are several passages, each with its title. Answer the question by combining facts from more than one "
        "of them; most of the passages do not matter.",
        _SHORT_ANSWER,
    ),
    "supporting": Wording(
        "Here are several passages, each with its title. Answer the question by combining facts from them.",
        _SHORT_ANSWER,
    ),
    "none": Wording("Answer the question from what you know. It takes several facts.", _SHORT_ANSWER),
}
SINGLE_HOP: Mapping[Passages, Wording] = {
    "all": Wording(
        "Here are several passages, each with its title. Answer the question from one of them; the others do not "
        "matter.",
        _SHORT_ANSWER,
    ),
    # One passage, or those of the whole question where the data does not say which of them a sub-question rests on.
    "supporting": Wording(
        "Here is what the answer rests on, with its title in front. Answer the question from it.", _SHORT_ANSWER
    ),
    "none": Wording("Answer the question from what you know.", _SHORT_ANSWER),
}


def build_prompt(style: Style, wording: Wording, question: str, context: Sequence[str] = ()) -> str:
    """The prompt: "cold" is the lines of context and the question alone; "warm" puts the wording around them.

    Args:
        style: cold (the question alone) or warm (with an instruction).
        wording: what is put around context and question.
        question: its text.
        context: its lines.
    """
    if style == "cold":
        return "\n".join([*context, question])
    return "\n\n".join([wording.task, *filter(None, ["\n".join(context)]), f"Question: {question}", wording.answer])


def format_passage(title: str, text: str) -> str:
    """One passage on one line."""
    return f"{title}: {' '.join(text.split())}"


def add_instructions(
    example: Example, system_prompt: str | None, instruction: str | None, few_shot: Sequence[Message] = ()
) -> Example:
    """The example with what is put around every prompt, as far as it is given.

    The instruction stands below the prompt's text, or below that of its last user message. Worked examples stand before
    the prompt, and behind a system message.

    Args:
        example: the question and its answers.
        system_prompt: text of a system message.
        instruction: text after the prompt.
        few_shot: turns of a chat, as `read_few_shot` gives them.

    Raises:
        QreditError: messages that begin with a system message of their own, or without a user message.
    """
    prompt = example.prompt if instruction is None else append_to_prompt(example, f"\n\n{instruction}")
    if system_prompt is None and not few_shot:
        return replace(example, prompt=prompt)
    messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    own = messages[:1] if messages[0]["role"] in ("system", "developer") else []
    if own and system_prompt is not None:
        raise QreditError(f"{example.place}: the row has a system message of its own; leave out system_prompt")
    system = own if system_prompt is None else [{"role": "system", "content": system_prompt}]
    return replace(example, prompt=[*system, *few_shot, *messages[len(own) :]])


def append_to_prompt(example: Example, text: str) -> str | list[Message]:
    """The prompt with a text behind its own, or behind that of its last user message.

    Args:
        example: whose prompt it is.
        text: with the white space in front of it.

    Raises:
        QreditError: messages without one of the user.
    """
    if isinstance(example.prompt, str):
        return f"{example.prompt}{text}"
    messages = list(example.prompt)
    users = [number for number, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        raise QreditError(f"{example.place}: there is no user message that a text could follow")
    last = messages[users[-1]]
    messages[users[-1]] = {**last, "content": f"{last['content']}{text}"}
    return messages
