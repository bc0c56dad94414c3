"""A prompt that shows its gold answer: what a policy is asked for a rationale that leads there."""

from collections.abc import Callable

from qredit.rollouts.format import Prompt
from qredit.utils.errors import QreditError


def show_answer(prompt: Prompt, answer: str, fill: Callable[[str, str], str]) -> Prompt:
    """The prompt with the gold answer in it.

    Args:
        prompt: a text, or chat messages, of which the last user message is changed.
        answer: the gold answer as text.
        fill: (the prompt's text, the answer) → the text that stands in its place.

    Raises:
        QreditError: messages without a user message, or one whose content is no text.
    """
    if isinstance(prompt, str):
        return fill(prompt, answer)
    users = [number for number, message in enumerate(prompt) if message.get("role") == "user"]
    if not users:
        raise QreditError("there is no user message that a hint could be put into")
    last = prompt[users[-1]]
    if not isinstance(last.get("content"), str):
        raise QreditError(
            f"a hint is put into the text of the last user message; its content is {last.get('content')!r}"
        )
    return [*prompt[: users[-1]], {**last, "content": fill(last["content"], answer)}, *prompt[users[-1] + 1 :]]
