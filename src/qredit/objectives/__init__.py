"""Finished methods, one per file, and the registry that the command line and the text form read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qredit.objectives._method import Method
from qredit.objectives.dapo import dapo
from qredit.objectives.dr_grpo import dr_grpo
from qredit.objectives.garl import garl
from qredit.objectives.grpo import grpo
from qredit.objectives.maxrl import maxrl
from qredit.objectives.paft import paft
from qredit.objectives.rloo import rloo
from qredit.objectives.sft_then_rlvr import sft_then_rlvr
from qredit.objectives.verifree import verifree

REGISTRY: Mapping[str, Method[Any]] = MappingProxyType(
    {made.name: made for made in (dapo, dr_grpo, garl, grpo, maxrl, paft, rloo, sft_then_rlvr, verifree)}
)

__all__ = [
    "REGISTRY",
    "Method",
    "dapo",
    "dr_grpo",
    "garl",
    "grpo",
    "maxrl",
    "paft",
    "rloo",
    "sft_then_rlvr",
    "verifree",
]
