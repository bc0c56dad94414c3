"""The Jinja2 templates of the page, filled in: what they print is escaped, and what cannot be seen is shown."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qredit.utils.sanitize import escape_control_chars

FOLDER = Path(__file__).parent / "templates"


def render(name: str, **values: Any) -> Markup:
    """A template of `templates/` with these values, as markup that other templates take as it is.

    Every value that is not `Markup` itself is escaped, so that no text of a run or of a model can become an element.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not given.
    """
    return Markup(_environment().get_template(name).render(values))


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,  # a misspelt name is an error, not an empty place on the page
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """Text with terminal codes and marks of writing direction as escapes; Jinja2 escapes the markup after this."""
    return value if isinstance(value, Markup) else escape_control_chars(str(value))
