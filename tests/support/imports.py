"""What files import, read from their text: those of the package, of the tests, and of experiments."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT, SOURCE, TESTS

ENGINES = frozenset({"transformers", "trl", "accelerate", "datasets", "peft", "verl", "vllm"})
"""What takes ten seconds to import."""


def module_name(path: Path) -> str:
    """The dotted name under which a file is imported: qredit…, tests…, or that of a folder of experiments."""
    base = next(base for base in (SOURCE.parent, ROOT / "experiments", ROOT) if path.is_relative_to(base))
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted(SOURCE.rglob("*.py"))
FILES = {module_name(path): path for path in MODULES}
"""The modules of the package."""


@cache
def files_of_checkout() -> dict[str, Path]:
    """The modules of the package, of the tests and of experiments."""
    beside = [path for folder in (TESTS, ROOT / "experiments") for path in folder.rglob("*.py")]
    return FILES | {module_name(path): path for path in beside}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, files: dict[str, Path] = FILES):
    """The modules that a file imports, anywhere in it; of a package's names, the file that holds each."""
    for node in ast.walk(parsed(path)):
        yield from imports_of(node, files)


def imports_of(node: ast.AST, files: dict[str, Path] = FILES):
    """The modules that one statement imports; none where it is no import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if name in files else node.module


def imports_when_read(node: ast.AST, files: dict[str, Path] = FILES):
    """The modules that a file imports as it is imported itself, none in functions and none for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        ):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield from imports_of(child, files)
        else:
            yield from imports_when_read(child, files)


@cache
def _first_imports(path: Path, beside: bool) -> tuple[str, ...]:
    return tuple(imports_when_read(parsed(path), files_of_checkout() if beside else FILES))


def loaded_with(*names: str) -> set[str]:
    """Modules of the package and all that importing them imports: files of ours, others by their first name."""
    return set(_reached(names, beside=False))


def needs_engine(path: Path) -> bool:
    """Whether a file of tests imports an engine, in a function too, or what imports one."""
    return any(name in ENGINES for name in _reached(imports(path, files_of_checkout()), beside=True))


def _reached(names: Iterable[str], beside: bool) -> Iterator[str]:
    """The modules that importing these imports, as they are found: who looks for one need not read every file.

    Args:
        names: dotted names.
        beside: whether files of the tests and of experiments are ours, too, or those of the package alone.
    """
    files = files_of_checkout() if beside else FILES
    ours = {name.split(".")[0] for name in files}
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        following = waiting.pop()
        inside = following.split(".")[0] in ours
        new = {".".join(following.split(".")[: n + 1]) for n in range(following.count(".") + 1)} if inside else set()
        found = (new & files.keys() if inside else {following.split(".")[0]}) - seen
        for module in found & files.keys():
            waiting += _first_imports(files[module], beside)
        seen |= found
        yield from found
