"""Optional parts of the installation: what is imported is declared, and one line says what is missing.

`make test-wheel` runs without them in truth; here their absence is made up.
"""

import importlib.util
import re
import sys
import tomllib

import pytest

from qredit import QreditError
from qredit.cli import main
from qredit.rewards import make_reward_function, math_equal
from qredit.utils import extras
from qredit.utils.extras import EXTRAS, MissingExtraError, require_extras
from tests.support.paths import ROOT
from tests.support.without_extras import CORE
from tests.test_house import imports_by_module

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CALLED = {
    "yaml": "pyyaml",
    "hydra": "hydra-core",
    "transfer_queue": "TransferQueue",
    "openenv": "openenv-core",
    "aviary": "fhaviary",
}
# have environments of their own (make vllm-env, verl-env, test-tools), or are added by the tests that need them
APART = {"vllm", "verl", "quantization", "textworld", "gymnasium", "textarena", "skyrl-gym", "openenv", "aviary"}


def listed(requirements):
    return {re.match(r"[\w-]+", requirement).group() for requirement in requirements}


DECLARED = {name: listed(found) for name, found in PROJECT["optional-dependencies"].items()}
DEPENDENCIES = listed(PROJECT["dependencies"])


def package(module):
    return CALLED.get(module, module.replace("_", "-"))


@pytest.fixture
def without(monkeypatch):
    """Makes packages look as if they were not installed."""

    def hide(*names):
        found = importlib.util.find_spec
        monkeypatch.setattr(extras, "find_spec", lambda name: None if name in names else found(name))

    return hide


def test_all_that_is_imported_is_declared():
    imported = {name.split(".")[0] for names in imports_by_module().values() for name in names}
    outside = {package(name) for name in imported - set(sys.stdlib_module_names) - {"qredit"}}
    assert outside <= DEPENDENCIES.union(*(DECLARED[name] for name in EXTRAS))


def test_core_is_what_check_of_the_installation_takes_it_for():
    assert {package(name) for name in CORE} == DEPENDENCIES


def test_an_extra_is_known_by_packages_that_it_installs():
    assert {name: {package(module) for module in modules} - DECLARED[name] for name, modules in EXTRAS.items()} == {
        name: set() for name in EXTRAS
    }


def test_make_installs_and_resolves_every_extra():
    makefile = (ROOT / "Makefile").read_text()
    (named,) = re.findall(r"^EXTRAS := (.*)$", makefile, re.MULTILINE)
    assert set(named.split(",")) == DECLARED.keys() - APART
    assert len(re.findall(r'"\.\[\$\(EXTRAS\)\]"', makefile)) == 2


def test_nothing_is_refused_where_all_is_there():
    require_extras("qredit demo", *(EXTRAS.keys() - APART))


def test_all_that_is_missing_is_named_with_one_command(without):
    without("peft", "math_verify", "matplotlib")
    with pytest.raises(MissingExtraError) as caught:
        require_extras("this", "trl", "math")
    told = "this needs peft, math-verify, not installed here; install with: pip install 'qredit[trl,math]'"
    assert str(caught.value) == told
    assert isinstance(caught.value, QreditError)
    assert isinstance(caught.value, ImportError)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("absent", "argv", "extra"),
    [
        ("transformers", ["train"], "trl"),
        ("accelerate", ["eval"], "trl"),
        ("peft", ["probe"], "trl"),
        ("datasets", ["bench", "step"], "trl"),
        ("trl", ["compare", "grpo()"], "trl"),
        ("matplotlib", ["compare", "grpo()"], "report"),
        ("matplotlib", ["demo"], "report"),
        ("matplotlib", ["lab", "escort"], "report"),
        ("math_verify", ["train", "--reward", "math_equal"], "math"),
        ("math_verify", ["train", "--dry-run", "--reward", "f1, 0.5 * math_equal"], "math"),
        ("math_verify", ["eval", "--reward", "math_equal"], "math"),
        ("math_verify", ["eval", "--metric", "math_equal"], "math"),
        ("math_verify", ["probe", "--reward", "math_equal"], "math"),
        ("math_verify", ["compare", "grpo()", "--reward", "math_equal"], "math"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_command_says_what_is_missing_and_leaves_nothing(without, absent, argv, extra, tmp_path, monkeypatch, capsys):
    without(absent)
    monkeypatch.chdir(tmp_path)
    assert main([*argv, "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"needs {package(absent)}, not installed here" in line
    assert line.endswith(f"pip install 'qredit[{extra}]'")
    assert list(tmp_path.iterdir()) == []


def test_help_is_shown_where_an_extra_is_missing(without, capsys):
    without("trl", "matplotlib")
    with pytest.raises(SystemExit, match="0"):
        main(["demo", "--help"])
    assert "--full" in capsys.readouterr().out


def test_numbers_are_judged_without_extra_that_judges_formulas(without):
    without("math_verify")
    assert math_equal("12", ["$12$"]) == 1.0
    with pytest.raises(MissingExtraError, match="math_equal needs math-verify"):
        math_equal(r"\sqrt{19} + 1", [r"1 + \sqrt{19} \cdot 1"])
    with pytest.raises(MissingExtraError, match="reward 'math_equal' needs math-verify"):
        make_reward_function("math_equal")
