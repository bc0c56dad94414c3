"""The house rules that a machine can keep: who imports whom."""

import ast
import statistics
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
    "power",
    "guide",
    "importance",
    "imports",
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


def code_lines(path):
    """Numbers of the lines that are neither blank, nor comment, nor docstring."""
    text = path.read_text()
    told = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            told |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return {n for n, line in lines if n not in told and line.strip() and not line.strip().startswith("#")}


def function_lengths(path):
    counted = code_lines(path)
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return [sum(node.lineno <= line <= node.end_lineno for line in counted) for node in functions]


def test_objectives_and_functions_of_the_core_stay_short():
    objectives = [p for p in modules() if place(p) == "objectives" and not p.name.startswith("_")]
    assert statistics.median(len(code_lines(path)) for path in objectives) <= 15
    lengths = sorted(length for path in modules() if place(path) in CORE for length in function_lengths(path))
    assert lengths[int(0.9 * len(lengths))] <= 30
    assert len(lengths) > 500


def test_the_catalog_is_what_the_registries_say():
    from qredit.catalog import FILE, as_text, read_registries

    assert FILE.read_text(encoding="utf-8") == as_text(read_registries()), "run python -m qredit.catalog"
