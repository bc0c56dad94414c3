"""What a chat template says: a prompt as text, the beginning of an assistant's turn, and the token that ends one."""

from collections.abc import Mapping, Sequence
from typing import Any

from qredit.rollouts.tokenizer import Tokenizer, find_first_control_token, get_control_tokens
from qredit.tasks.cells import drop_nulls
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error

ANCHOR = "Qanchor"
SAMPLE_QUESTION = {"role": "user", "content": "Qquestion"}


def render_messages(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, start: bool, **template: Any) -> str:
    """Messages as text, less their keys that are null; `start` begins the assistant's turn behind them.

    Args:
        messages: with the keys role and content.
        tokenizer: of the model.
        start: begin the assistant's turn.

    Raises:
        QreditError: the template refuses them (as Gemma's refuses a system message), or cannot read them.
    """
    try:
        text = tokenizer.apply_chat_template(
            drop_nulls(list(messages)), tokenize=False, add_generation_prompt=start, **template
        )
    except Exception as error:  # a template is a program of the model's authors and raises whatever it likes
        raise QreditError(f"the chat template refuses the messages: {summarize_error(error)}") from None
    return str(text)


def render_continuation(
    messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, opening: str, **template: Any
) -> str:
    """Messages of which the last is an assistant's, as text that ends with what it says so far, to be gone on with.

    What it says stands as it is, white space at its end included. Where there is a thinking span to open, it is the
    beginning of the thinking; else it stands where the template puts an assistant's text.

    Args:
        messages: with the keys role and content.
        tokenizer: of the model.
        opening: text that opens thinking.
    """
    *before, last = messages
    said = last.get("content")
    if not isinstance(said, str):
        raise QreditError(f"the last message is an assistant's and would be continued; its content is {said!r}")
    if opening.strip():
        head = append_opening(render_messages(before, tokenizer, start=True, **template), opening)
        return head + said.removeprefix(opening.rstrip()).removeprefix(opening[len(opening.rstrip()) :])
    text = render_messages([*before, {**last, "content": ANCHOR}], tokenizer, start=False, **template)
    head, found, _ = text.rpartition(ANCHOR)
    return (head if found else render_messages(before, tokenizer, start=True, **template)) + said


def append_opening(text: str, opening: str) -> str:
    """A prompt with the opening at its end, unless it ends with it already."""
    opened = bool(opening.strip()) and text.rstrip().endswith(opening.strip())
    return text if opened else text + opening


def find_end_of_turn(tokenizer: Tokenizer, template: Mapping[str, Any]) -> str | None:
    """What follows an assistant's text in the chat template, up to and including the first control token.

    None where the template puts no control token there, or cannot be tried on a question and an answer.
    """
    try:
        text = render_messages(
            [SAMPLE_QUESTION, {"role": "assistant", "content": ANCHOR}], tokenizer, start=False, **template
        )
    except QreditError:
        return None
    _, found, rest = text.rpartition(ANCHOR)
    end = find_first_control_token(rest, get_control_tokens(tokenizer)) if found else None
    return None if end is None else rest[: end[0]] + end[1]


def find_turn_tokens(tokenizer: Tokenizer) -> frozenset[str]:
    """The control tokens that stand between the turns of the chat template, end-of-text and bos left out."""
    if not tokenizer.chat_template:
        return frozenset()
    try:
        text = render_messages([SAMPLE_QUESTION], tokenizer, start=True)
    except QreditError:
        return frozenset()
    whole = {getattr(tokenizer, "bos_token", None), tokenizer.eos_token}
    return frozenset(token for token in get_control_tokens(tokenizer) if token in text and token not in whole)
