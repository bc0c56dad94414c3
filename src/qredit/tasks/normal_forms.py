"""When two texts are the same question or answer, and texts that no tokenizer reads."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_BAD = re.compile("[\ud800-\udfff\0]")


def normalize_text(text: str) -> str:
    """The form in which texts are compared, never trained on.

    Unicode's NFC, full-width ASCII (U+FF01 to U+FF5E, U+3000) as ASCII, lines ended by a line feed alone, and no white
    space around it. Not NFKC, which would take 10² for 102.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", lines.translate(_FULL_WIDTH)).strip()


def normalize_prompt(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """The form in which prompts are compared: their text, or role and content of every message."""
    if isinstance(prompt, str):
        return normalize_text(prompt)
    return "\0".join(f"{message.get('role')}\0{normalize_text(str(message.get('content')))}" for message in prompt)


def find_unreadable(value: Any) -> str | None:
    """What in a value, or in the texts inside it, no tokenizer reads, in words; None where there is nothing."""
    if isinstance(value, str):
        found = _BAD.search(value)
        if found is None:
            return None
        code = ord(found[0])
        if code:
            return f"half a character, the lone surrogate \\u{code:04x} (at {found.start()}); was the text cut there?"
        return f"a NUL character (at {found.start()}); remove it"
    inside = (*value, *value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((bad for part in inside if (bad := find_unreadable(part)) is not None), None)
