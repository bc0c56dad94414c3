"""What is installed on a machine and what this package asks for, so that a missing package is said before compute."""

import datetime
import platform
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from qredit.utils.errors import QreditError

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def requirements() -> list[Requirement]:
    """What the package and its training need."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    asked = [Requirement(line) for line in (*project["optional-dependencies"]["trl"], *project["dependencies"])]
    return list({requirement.name: requirement for requirement in asked[::-1]}.values())


def installed() -> dict[str, str | None]:
    """The version of each of them, None where it is missing."""
    found: dict[str, str | None] = {}
    for requirement in requirements():
        try:
            found[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            found[requirement.name] = None
    return found


def outside(found: Mapping[str, str | None]) -> list[str]:
    """Versions that are not those which pyproject.toml asks for: the run goes on, and its results say so."""
    asked = {requirement.name: requirement.specifier for requirement in requirements()}
    return [
        f"{name} {own} ({asked[name]})" for name, own in found.items() if own is not None and own not in asked[name]
    ]


def describe_machine(cpu: bool) -> dict[str, Any]:
    """Card, memory, versions and date.

    Raises:
        QreditError: there is no GPU, or a package is missing.
    """
    found = installed()
    missing = sorted(name for name, own in found.items() if own is None)
    if missing:
        raise QreditError(f"not installed: {', '.join(missing)}; make gpu-wheels downloads what can be carried")
    if not cpu and not torch.cuda.is_available():
        raise QreditError("no CUDA device; --toy runs the same at toy size on the CPU")
    card = platform.machine() if cpu else torch.cuda.get_device_name()
    memory = None if cpu else torch.cuda.get_device_properties(0).total_memory
    return {
        "card": card,
        "memory": memory,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "installed": found,
        "outside": outside(found),
    }
