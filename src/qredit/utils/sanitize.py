"""Text that others wrote (prompts, data, model output), made safe to show on a terminal and to keep on one line."""

import json
import unicodedata
from typing import Any

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_BREAKS = "\u2028\u2029"
_UNSAFE = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *range(0xD800, 0xE000), *map(ord, _BIDI + _BREAKS))}


def escape_control_chars(text: str, keep: str = "\n\t") -> str:
    """The text with every control character written as its escape, so that a terminal shows it and obeys none of it.

    Control characters are those of Unicode's category Cc less `keep`, lone surrogates, marks of writing direction and
    the separators of lines and paragraphs.

    >>> print(escape_control_chars("a\\x1b[2Jb"))
    a\\x1b[2Jb
    """
    return "".join(c if c in keep or not _is_control(c) else c.encode("unicode_escape").decode() for c in text)


def to_one_line(text: str) -> str:
    """The text on one line: a line break becomes a space, every control character its escape."""
    return escape_control_chars(" ".join(text.split("\n")), keep="")


def summarize_error(error: Exception) -> str:
    """The first line of what an error says; the name of its type where it says nothing.

    >>> print(summarize_error(ValueError("no such model\\nsee the list")))
    no such model
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def to_json_line(record: Any) -> str:
    """A record as JSON on one line, whatever a reader takes for a line break, with no control character in it.

    Letters of any script stay as they are.
    """
    return json.dumps(record, ensure_ascii=False).translate(_UNSAFE) + "\n"


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or character in _BIDI + _BREAKS
