"""What a run found, in a file that is written anew after every finding: a run that is killed keeps what it had."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qredit.utils.atomic_files import write_text_atomic


class Results:
    """`facts` of machine and run, and for each section its findings, or why there are none."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.kept: dict[str, Any] = {**facts, "sections": {}}
        self.put("versions", {})

    def put(self, section: str, found: Mapping[str, Any]) -> None:
        """Add findings to those of a section, on the disk too."""
        self.kept["sections"].setdefault(section, {}).update(found)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.path, json.dumps(self.kept, indent=1) + "\n")
