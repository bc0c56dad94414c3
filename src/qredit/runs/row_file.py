"""Rows written part by part: a file that is whole or not there, and beside it what is done, to go on from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qredit.runs.source_run import read_records
from qredit.utils.atomic_files import append_text, check_new_file, write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import to_json_line


@dataclass
class RowFile:
    """The rows of a long command that are known so far.

    `FILE.partial` holds the settings, then a line for each part. The last line may be cut off, and is then left out.

    Attributes:
        path: where all rows will stand.
        settings: what the rows hang on.
        parts: rows of each part that is done.
    """

    path: Path
    settings: Mapping[str, Any]
    parts: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def partial(self) -> Path:
        """Where parts are kept until all are done."""
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of all parts."""
        return [row for part in self.parts for row in part]

    def check_free(self) -> None:
        """Refuse a file that is there already, or has no place to be, and parts that were made with other settings.

        Raises:
            QreditError: says which setting is another one.
        """
        check_new_file(self.path, "the rows")
        kept = self._read()
        for name, value in self.settings.items() if kept else ():
            was = kept[0].get(name)
            if was != value:
                raise QreditError(
                    f"{self.partial} was begun with {name}={was!r}, not {value!r}; "
                    "give another --output, or remove it to begin anew"
                )

    def open(self) -> int:
        """Take up the parts that are done; how many."""
        kept = self._read() or [dict(self.settings)]
        write_text_atomic(self.partial, "".join(map(to_json_line, kept)))
        self.parts = [line["rows"] for line in kept[1:]]
        return len(self.parts)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the rows of a part."""
        self.parts.append(list(rows))
        append_text(self.partial, to_json_line({"rows": rows}))

    def close(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the file, if there is a row for it, and take the parts away."""
        if rows:
            write_text_atomic(self.path, "".join(map(to_json_line, rows)))
        self.partial.unlink(missing_ok=True)

    def _read(self) -> list[dict[str, Any]]:
        """The whole lines of the partial file."""
        if not self.partial.exists():
            return []
        try:
            lines = read_records(self.partial, _check_object)
            for line in lines[1:]:
                list(map(_check_object, line["rows"]))
            return lines
        except (QreditError, KeyError, TypeError, ValueError):
            raise QreditError(f"{self.partial} cannot be gone on from; remove it, or give another --output") from None


def _check_object(value: Any) -> dict[str, Any]:
    """A JSON object; ValueError where it is none."""
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value
