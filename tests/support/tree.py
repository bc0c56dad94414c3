"""The source tree with one purpose per file: the first sentence of each module. Run it to write docs/tree.md."""

import ast
from pathlib import Path

from tests.support.paths import ROOT, SOURCE

PAGE = ROOT / "docs" / "tree.md"


def purpose(path: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    told = ast.get_docstring(ast.parse(path.read_text())) or ""
    return told.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def lines(folder: Path = SOURCE, depth: int = 0) -> list[str]:
    """One line per file, then the folders with theirs; a folder's purpose is its __init__'s."""
    files = sorted(p for p in folder.glob("*.py") if p.name not in ("__init__.py", "__main__.py"))
    folders = sorted(p for p in folder.iterdir() if (p / "__init__.py").exists())
    indent = "    " * depth
    found = [f"{indent + file.name:<28}{purpose(file)}" for file in files]
    for inner in folders:
        found.append(f"{indent + inner.name + '/':<28}{purpose(inner / '__init__.py')}")
        found += lines(inner, depth + 1)
    return found


def page() -> str:
    """The text of docs/tree.md."""
    return "\n".join(
        [
            "# Every file of src/qredit with its purpose",
            "",
            "Made by `python -m tests.support.tree`, which writes this page anew from the first line of each file.",
            "",
            "```",
            *lines(),
            "```",
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
