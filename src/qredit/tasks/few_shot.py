"""Worked examples: turns of a chat that come before every prompt, read from a file."""

from pathlib import Path

from qredit.tasks.cells import Message, parse_chat
from qredit.tasks.readers import read_file
from qredit.utils.errors import QreditError

ROLES = ("user", "assistant")


def read_few_shot(file: str) -> list[Message]:
    """The messages of a file: pairs of a question (user) and how to answer it (assistant).

    Args:
        file: a JSON list of messages, or a message on each line; whatever `read_file` reads.

    Raises:
        QreditError: as `read_file`; no messages with text, or others than such pairs.
    """
    path = Path(file).expanduser()
    try:
        found = read_file(path).records
    except QreditError as error:
        raise QreditError(f"few_shot: {error}") from None
    messages = parse_chat(list(found))
    if messages is None:
        raise QreditError(f"few_shot: {path} must hold messages with a role and content")
    for number, message in enumerate(messages):
        wanted = ROLES[number % 2]
        if message["role"] != wanted:
            raise QreditError(f"few_shot: message {number + 1} of {path} is by {message['role']!r}, not by {wanted!r}")
    if len(messages) % 2:
        raise QreditError(f"few_shot: the last question of {path} is not answered")
    return messages
