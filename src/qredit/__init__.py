"""qredit: train reasoning models from answers alone, with one dial q from RLVR to maximum likelihood."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from qredit.errors import QreditError

if TYPE_CHECKING:
    from qredit import tsallis
    from qredit.batch import RolloutBatch
    from qredit.chain import Credit, Source, add, chain, on_span, per_span
    from qredit.objective import Objective, trace

__version__ = "0.1.0"

# Where each name lives. It is imported when it is first asked for: what needs no torch, such as the help of the
# command line, does not wait for it.
_HOMES = {
    "Credit": "qredit.chain",
    "Objective": "qredit.objective",
    "RolloutBatch": "qredit.batch",
    "Source": "qredit.chain",
    "add": "qredit.chain",
    "chain": "qredit.chain",
    "on_span": "qredit.chain",
    "per_span": "qredit.chain",
    "trace": "qredit.objective",
    "tsallis": "qredit.tsallis",
}


class _Package(ModuleType):
    """A module in which `chain` is the function: importing the file of that name would put the file in its place."""

    @property
    def chain(self) -> Any:
        return importlib.import_module("qredit.chain").chain

    @chain.setter
    def chain(self, module: ModuleType) -> None:
        """Python's import names a file in its package once it is read; here the name is taken."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qredit' has no attribute '{name}'")
    home = importlib.import_module(_HOMES[name])
    return home if home.__name__ == f"qredit.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package

__all__ = [
    "Credit",
    "Objective",
    "QreditError",
    "RolloutBatch",
    "Source",
    "add",
    "chain",
    "on_span",
    "per_span",
    "trace",
    "tsallis",
]
