"""qredit: train reasoning models from answers alone, with one dial q from RLVR to maximum likelihood."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from qredit._former import MOVED, FormerPaths
from qredit.utils.errors import QreditError

if TYPE_CHECKING:
    from qredit.core import tsallis
    from qredit.core.batch import RolloutBatch
    from qredit.core.chain import Credit, Source, add, chain, on_span, per_span, tempered
    from qredit.core.objective import Objective, trace

__version__ = "0.1.0"

# Where each name lives. It is imported when it is first asked for: what needs no torch, such as the help of the
# command line, does not wait for it.
_HOMES = {
    "Credit": "qredit.core.chain",
    "Objective": "qredit.core.objective",
    "RolloutBatch": "qredit.core.batch",
    "Source": "qredit.core.chain",
    "add": "qredit.core.chain",
    "chain": "qredit.core.chain",
    "on_span": "qredit.core.chain",
    "per_span": "qredit.core.chain",
    "tempered": "qredit.core.chain",
    "trace": "qredit.core.objective",
    "tsallis": "qredit.core.tsallis",
}


class _Package(ModuleType):
    """A module in which `chain` is the function: the former import path of its file would put the file in its place."""

    @property
    def chain(self) -> Any:
        return importlib.import_module("qredit.core.chain").chain

    @chain.setter
    def chain(self, module: ModuleType) -> None:
        """Python's import names a file in its package once it is read; here the name is taken."""


def __getattr__(name: str) -> Any:
    if name in MOVED:  # a module that was read as a side effect of others once: qredit.batch, qredit.errors
        return importlib.import_module(f"qredit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'qredit' has no attribute '{name}'")
    home = importlib.import_module(_HOMES[name])
    return getattr(home, name, home)  # a name that its module does not hold is the module itself


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
sys.meta_path.insert(0, FormerPaths())

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
    "tempered",
    "trace",
    "tsallis",
]
