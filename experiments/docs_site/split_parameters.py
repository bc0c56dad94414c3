"""For the API reference: `low, high: half-widths.` under Args is a line for each of the two names."""

import re
from typing import Any

from griffe import Extension, Object

SEVERAL = re.compile(r"^( +)(\*{0,2}\w+(?:, \*{0,2}\w+)+): ", re.MULTILINE)


def split(docstring: str) -> str:
    """The docstring with each entry of Args or Attributes that names several parameters written once for each.

    The reference shows them as a table with a row, a type and a default for each name. Griffe, which reads docstrings,
    takes the words before a colon as one name.
    """
    head, *sections = re.split(r"^(?=(?:Args|Attributes):$)", docstring, flags=re.MULTILINE)
    return head + "".join(map(_split_section, sections))


def _split_section(section: str) -> str:
    """A section that begins with its title, up to the end of the docstring: entries end at the next unindented line."""
    body = re.match(r"\w+:\n(?:(?: .*)?\n?)*", section)
    assert body is not None
    entries = re.split(r"(?m)^(?= {4}\S)", body.group())
    return "".join(map(_split_entry, entries)) + section[body.end() :]


def _split_entry(entry: str) -> str:
    found = SEVERAL.match(entry)
    if found is None:
        return entry
    told = entry[found.end() :]
    ends = told[len(told.rstrip()) :]
    return "\n".join(f"{found[1]}{name}: {told.rstrip()}" for name in found[2].split(", ")) + ends


class SplitParameters(Extension):
    """Read by mkdocstrings; see mkdocs.yml."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = split(obj.docstring.value)
