"""The names that the text form of objectives knows, with a line on each, readable without importing torch.

`catalog.json` is made from the registries by `python -m qredit.catalog` (`make catalog`), and a test holds it equal to
them. What only shows or checks names reads it: `qredit objectives`, and the error for a misspelt objective. The same
command writes `objectives/__init__.pyi`, in which type checkers and editors find the methods.
"""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qredit.objectives import Method

FILE = Path(__file__).with_name("catalog.json")
STUB = Path(__file__).with_name("objectives") / "__init__.pyi"
PARTS = ("stages", "penalties", "surrogates")
Row = Mapping[str, Any]
_STUB = '''"""What type checkers and editors see of this folder. Written by `make catalog`."""

from collections.abc import Mapping
from typing import Any

from qredit.objectives._method import Method as Method
'''


@cache
def catalog() -> Mapping[str, Sequence[Row]]:
    """What the file holds: under "objectives" and under each of `PARTS`, one row for each name, in their order."""
    found: dict[str, Sequence[Row]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def objective_names() -> list[str]:
    """The names of the registered objectives."""
    return [row["name"] for row in catalog()["objectives"]]


def read_registries() -> dict[str, list[dict[str, Any]]]:
    """The catalog as the registries have it now; imports torch."""
    from qredit.objectives import REGISTRY, parsing

    parts = {"stages": parsing.STAGES, "penalties": parsing.PENALTIES, "surrogates": parsing.SURROGATES}
    listed = {title: [_row(name, thing) for name, thing in sorted(parts[title].items())] for title in PARTS}
    return {"objectives": [about(name, made) for name, made in sorted(REGISTRY.items())], **listed}


def about(name: str, made: "Method[Any]") -> dict[str, Any]:
    """One row of an objective."""
    from qredit.objectives.parsing import example

    return {
        **_row(name, made),
        "family": made.family,
        "source": made.source,
        "certainty": made.certainty,
        "known": made.known,
        "official": made.official,
        "needs": sorted(example(name).needs),
    }


def signature(thing: Any) -> str:
    """How a thing is called: its parameters, with their defaults."""
    parameters = inspect.signature(thing).parameters.values()
    return f"({', '.join(p.name if p.default is p.empty else f'{p.name}={p.default!r}' for p in parameters)})"


def as_text(rows: Mapping[str, Sequence[Row]]) -> str:
    """The text of the file: one line for each name, so that two changes to it meet only where they touch one name."""
    kinds = []
    for title, listed in rows.items():
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in listed)
        kinds.append(f"{json.dumps(title)}: [\n{lines}\n]")
    return "{\n" + ",\n".join(kinds) + "\n}\n"


def stub(names: Iterable[str]) -> str:
    """The text of the stub: where each objective is defined."""
    lines = [f"from qredit.objectives.{name} import {name} as {name}" for name in sorted(names)]
    return _STUB + "\n".join(lines) + "\n\nREGISTRY: Mapping[str, Method[Any]]\n"


def _row(name: str, thing: Any) -> dict[str, Any]:
    first = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
    return {"name": name, "signature": signature(thing), "summary": first}


if __name__ == "__main__":
    rows = read_registries()
    FILE.write_text(as_text(rows), encoding="utf-8")
    STUB.write_text(stub(row["name"] for row in rows["objectives"]), encoding="utf-8")
