"""What docstrings show is true: their examples run."""

import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
WITH_EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if ">>>" in path.read_text())


@pytest.mark.engine
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_examples_in_docstrings_run(path):
    found = doctest.testmod(importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts)))
    assert found.attempted
    assert not found.failed
