"""Import paths of former versions lead to what took their place, with a warning."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qredit
from qredit._former import MOVED, path_now

SOURCE = Path(qredit.__file__).parent
WITHOUT_ENGINES = sorted(name for name in MOVED if not name.startswith(("trl", "run")))


@pytest.mark.parametrize("name", sorted(MOVED))
def test_every_former_path_leads_to_a_module(name):
    parts = MOVED[name].split(".")
    assert (SOURCE.joinpath(*parts) / "__init__.py").exists() or SOURCE.joinpath(*parts).with_suffix(".py").exists()


@pytest.mark.parametrize("name", WITHOUT_ENGINES)
def test_a_former_path_is_the_module_that_took_its_place(name):
    sys.modules.pop(f"qredit.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"qredit.{name} is now qredit.{MOVED[name]}"):
        found = importlib.import_module(f"qredit.{name}")
    assert found is importlib.import_module(f"qredit.{MOVED[name]}")
    assert found.__spec__.name == found.__name__ == f"qredit.{MOVED[name]}"


def test_the_longest_former_path_counts():
    assert path_now("qredit.penalty.base") == "qredit.core.penalty"
    assert path_now("qredit.penalty.entropy") == "qredit.penalties.entropy"
    assert path_now("qredit.core.batch") is None
    assert path_now("other.batch") is None


@pytest.mark.e2e
@pytest.mark.slow
def test_names_that_scripts_import_are_there():
    """And no file of a former package is read a second time, in a process that knows none of them yet."""
    code = """
import warnings
warnings.simplefilter("ignore")
import qredit.rollout.collate, qredit.rollouts.collate
assert qredit.rollout.collate.collate is qredit.rollouts.collate.collate
from qredit.batch import RolloutBatch
from qredit.chain import Source, on_span
from qredit.objectives import garl
from qredit.text import parse
import qredit.core.batch
assert RolloutBatch is qredit.core.batch.RolloutBatch
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.engine
@pytest.mark.parametrize(
    ("former", "names"),
    [("qredit.rollout.sample", ("Budget", "Draw", "sample")), ("qredit.evaluate", ("Answered", "summary"))],
)
def test_names_that_scripts_import_from_samplers_are_there(former, names):
    """Here, where what they import is loaded: a process of its own imports transformers for it."""
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=f"{former} is now {path_now(former)}"):
        found = importlib.import_module(former)
    assert all(callable(getattr(found, name)) for name in names)
    assert found is importlib.import_module(path_now(former))


def test_former_names_lead_to_todays():
    code = """
import warnings
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    from qredit.rollouts.sampling_params import Budget, TokenBudget
    from qredit.rewards import parse_rewards, read_rewards
assert (Budget, read_rewards) == (TokenBudget, parse_rewards)
assert {str(one.message) for one in heard} == {
    "qredit.rollouts.sampling_params.Budget is now qredit.rollouts.sampling_params.TokenBudget",
    "qredit.rewards.read_rewards is now qredit.rewards.parse_rewards",
}
try:
    from qredit.rewards import never_there
except ImportError:
    pass
else:
    raise AssertionError("any name was found")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.engine
def test_every_former_name_leads_somewhere():
    found = re.compile(r"^__getattr__ = former_names\(\s*__name__,\s*(\{.*?\})", re.DOTALL | re.MULTILINE)
    answering = {path: match[1] for path in SOURCE.rglob("*.py") if (match := found.search(path.read_text()))}
    assert len(answering) > 10
    for path, pairs in answering.items():
        name = ".".join(("qredit", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        module = importlib.import_module(name)
        for former, now in ast.literal_eval(pairs).items():
            with pytest.warns(DeprecationWarning, match=now):
                assert getattr(module, former) is vars(module)[now]
