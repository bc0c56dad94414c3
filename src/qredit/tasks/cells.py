"""What a cell of a table says: the answers in it, the messages of a chat, and what Arrow has put there by itself."""

from collections.abc import Sequence
from typing import Any

from qredit.tasks.number_text import format_number, is_number

Message = dict[str, Any]


def unwrap_answer(value: Any) -> Any:
    """The text of an answer that is given as one assistant message; anything else as it is."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        message = drop_nulls(value[0])
        if message.get("role") == "assistant" and set(message) == {"role", "content"}:
            return message["content"]
    return value


def parse_answers(value: Any) -> tuple[str, ...]:
    """The answer and its aliases: a text, a number, one assistant message, or a list of texts or numbers.

    Empty where the value is none of these, or holds a blank text.
    """
    value = unwrap_answer(value)
    texts = [_text(part) for part in (value if isinstance(value, list) else [value])]
    return () if None in texts else tuple(dict.fromkeys(filter(None, texts)))


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value if value.strip() else None
    return format_number(value) if is_number(value) else None


def parse_chat(value: Any) -> list[Message] | None:
    """The messages of a chat without the keys that are null; None where the value is no list of messages with text."""
    if not isinstance(value, list) or not value:
        return None
    good = all(isinstance(m, dict) and all(isinstance(m.get(key), str) for key in ("role", "content")) for m in value)
    return [drop_nulls(message) for message in value] if good else None


def drop_nulls(value: Any) -> Any:
    """The value without the keys that are null, at any depth.

    Arrow gives every message of a column the keys of all others, as nulls. A template asks whether a key is there, and
    would print "None" for one that is there only as null.

    >>> drop_nulls([{"role": "user", "content": "Hi", "name": None}])
    [{'role': 'user', 'content': 'Hi'}]
    """
    if isinstance(value, dict):
        return {key: drop_nulls(part) for key, part in value.items() if part is not None}
    return [drop_nulls(part) for part in value] if isinstance(value, list) else value


def split_chat(messages: Sequence[Message]) -> tuple[list[Message], str] | None:
    """The messages before the last one, and its text, if it is the assistant's and others come before it."""
    *before, last = messages
    return (before, str(last["content"])) if before and last["role"] == "assistant" else None
