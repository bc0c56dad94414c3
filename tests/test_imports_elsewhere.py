"""What scripts beside the package import is there: experiments, examples, and the Python in docs."""

import ast
import importlib
import re
import textwrap

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.engine
OWN = ("qredit", "pocket_models")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def texts():
    """Every script, and every page's blocks of Python."""
    for folder in ("experiments", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield pytest.param(path.read_text(), id=path.name)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, block in enumerate(BLOCK.findall(path.read_text())):
            yield pytest.param(textwrap.dedent(block), id=f"{path.name}-{number}")


def wanted(text):
    """Module and name, None for the module itself, of every import of ours."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] in OWN)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN:
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("text", texts())
@pytest.mark.filterwarnings("error:.*is now qredit.*:DeprecationWarning")
def test_it_imports_what_is_there(text):
    for module, name in wanted(text):
        found = importlib.import_module(module)
        if name is not None and not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")
