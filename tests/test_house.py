"""The house rules that a machine can keep: who imports whom."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "qredit"
CORE = (
    "batch",
    "chain",
    "objective",
    "schedule",
    "tsallis",
    "credit",
    "surrogate",
    "penalty",
    "reduce",
    "objectives",
    "lab",
    "groups",
    "attention_roles",
    "masked",
    "segment",
    "errors",
    "seed",
    "diagnostics",
    "text",
)
ENGINES = {"trl": "trl", "verl": "verl"}


def modules():
    return sorted(path for path in SOURCE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def place(path):
    return path.relative_to(SOURCE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", [p for p in modules() if place(p) in CORE], ids=str)
def test_the_core_imports_torch_and_itself_only(path):
    import sys

    for name in imports(path):
        top, *rest = name.split(".")
        allowed = top in sys.stdlib_module_names or top in ("torch", "jaxtyping")
        inside = top == "qredit" and (not rest or rest[0] in CORE)
        assert allowed or inside, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=str)
def test_engines_are_imported_by_their_adapter_alone(path):
    for name in imports(path):
        top = name.split(".")[0]
        if top in ENGINES:
            assert place(path) == ENGINES[top], f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in modules() if place(p) in ("tasks", "rewards", "rollout")], ids=str)
def test_data_and_rollouts_know_nothing_of_credit(path):
    for name in imports(path):
        assert not name.startswith(("qredit.credit", "qredit.objective", "qredit.chain")), f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=str)
def test_an_objective_is_imported_by_the_registry_and_by_objectives_built_on_it_only(path):
    for name in imports(path):
        if name.startswith("qredit.objectives.") and not name.endswith("_method"):
            assert place(path) == "objectives", f"{path} imports {name}"
