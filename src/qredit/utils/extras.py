"""Optional parts of the installation: which packages each brings, and the one line that says that they are missing."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec

from qredit.utils.errors import QreditError

EXTRAS: Mapping[str, Sequence[str]] = {
    "trl": ("trl", "transformers", "accelerate", "datasets", "peft"),
    "vllm": ("vllm",),
    "verl": ("verl", "ray", "transformers", "datasets"),
    "quantization": ("bitsandbytes",),
    "report": ("matplotlib",),
    "math": ("math_verify",),
    "smollm2": ("gguf",),
    "reasoning-gym": ("reasoning_gym",),
    "tools": ("bm25s",),
    "textworld": ("textworld",),
    "gymnasium": ("gymnasium",),
    "textarena": ("textarena",),
    "skyrl-gym": ("skyrl_gym",),
    "openenv": ("openenv",),
    "aviary": ("aviary",),
}
"""The modules by which an extra is known to be there. pyproject.toml lists all that it installs."""


@cache
def get_installed_version(package: str) -> str:
    """The version of an installed package; the file that holds it is parsed once, where a run asks three times."""
    from importlib.metadata import version  # here: commands that only show text start without it

    return version(package)


class MissingExtraError(QreditError, ImportError):
    """An optional part of the installation is needed and not there; an ImportError for those who try to import it."""


def require_extras(asker: str, *extras: str) -> None:
    """Refuse to go on without these extras, before anything is computed. Imports none of their packages.

    Args:
        asker: what needs them, such as "qredit train"; the message begins with it.

    Raises:
        MissingExtra: one of their packages is not installed; the message names it and the command that installs it.
    """
    missing = {extra: _list_missing(extra) for extra in extras}
    absent = [name.replace("_", "-") for names in missing.values() for name in names]
    if absent:
        wanted = ",".join(extra for extra, names in missing.items() if names)
        raise MissingExtraError(
            f"{asker} needs {', '.join(absent)}, not installed here; install with: pip install 'qredit[{wanted}]'"
        )


def require_one_extra(asker: str, *extras: str) -> None:
    """Refuse to go on where none of these extras is whole; nothing is asked for where none is named.

    Args:
        asker: what needs one of them, such as "qredit verl-data"; the message begins with it.

    Raises:
        MissingExtra: every one of them lacks a package; the message names the command that installs each.
    """
    if extras and all(map(_list_missing, extras)):
        ways = " or ".join(f"pip install 'qredit[{extra}]'" for extra in extras)
        raise MissingExtraError(f"{asker} needs an engine's packages, not installed here; install with: {ways}")


def _list_missing(extra: str) -> list[str]:
    return [name for name in EXTRAS[extra] if find_spec(name) is None]
