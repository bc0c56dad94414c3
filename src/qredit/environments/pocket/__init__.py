"""Environments and tools for pocket tasks: nothing is downloaded."""

from qredit.environments.pocket.calculator import calculator
from qredit.environments.pocket.search import PocketSearch
from qredit.environments.pocket.table import sql

__all__ = ["PocketSearch", "calculator", "sql"]
