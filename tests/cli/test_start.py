"""Start-up: what only shows text imports none of the heavy libraries, and Ctrl-C while they load ends in one line."""

import importlib
import json
import subprocess
import sys

import pytest

import qredit
from qredit.cli.main import COMMANDS
from tests.support.marks import e2e

HEAVY = ("torch", "transformers", "trl", "datasets", "numpy", "accelerate", "peft", "matplotlib")
# Every command line in a fork of one process that has imported nothing but the choice of commands.
STARTED = """
import json, os, sys
from qredit.cli import main
for number, argv in enumerate({every!r}):
    if os.fork():
        os.wait()
        continue
    with open(f"{folder}/{{number}}", "w") as told:
        os.dup2(told.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            status = main(argv)
        except SystemExit as ended:
            status = ended.code
        print(json.dumps([status, [name for name in {heavy!r} if name in sys.modules]]), file=sys.stderr, flush=True)
    os._exit(0)
"""
# A real SIGINT, sent where a named module is about to be imported.
INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
from qredit.cli import main
sys.exit(main({argv!r}))
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("package", ["qredit", e2e("qredit.cli")])
def test_the_packages_run_as_modules(package):
    ran = subprocess.run([sys.executable, "-m", package, "--version"], capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stdout) == (0, f"{qredit.__version__}\n")


LIGHT = [
    (0, ["--help"]),
    (0, ["--version"]),
    *((0, [name, "--help"]) for name in COMMANDS),
    (0, ["objectives"]),
    (0, ["objectives", "--json"]),
    (0, ["tasks"]),
    (0, ["tasks", "--json"]),
    (2, ["tarin"]),
    (2, ["tasks", "--jsno"]),
    (2, ["objectives", "papt"]),
    (2, ["compare", "grpo()", "--stpes", "3"]),
    (2, ["eval", "--steps", "3"]),
    (2, ["eval", "--k", "0"]),
    (2, ["train", "--m", "few"]),
    (2, ["train", "--task", "jsnol"]),
    (2, ["train", "--objective", "gral"]),
    (2, ["lab", "escpae"]),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of those command lines wrote on standard error."""
    folder = tmp_path_factory.mktemp("told")
    ended = python(STARTED.format(every=[argv for _, argv in LIGHT], heavy=HEAVY, folder=folder))
    assert ended.returncode == 0, ended.stderr
    return [(folder / str(number)).read_text() for number in range(len(LIGHT))]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(LIGHT)), ids=lambda number: " ".join(LIGHT[number][1]))
def test_what_shows_or_refuses_text_imports_no_heavy_library(number, told):
    status, _ = LIGHT[number]
    *said, found = told[number].splitlines()
    assert json.loads(found) == [status, []]
    assert len(said) == (1 if status else 0)


def test_the_package_imports_no_heavy_library():
    ended = python(f"import sys, qredit; sys.exit(any(name in sys.modules for name in {HEAVY!r}))")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", qredit.__all__)
def test_every_name_of_the_package_is_what_its_module_calls_it(name):
    home = importlib.import_module(getattr(getattr(qredit, name), "__module__", "qredit.core.tsallis"))
    assert getattr(qredit, name) is getattr(home, name, home)
    assert name in dir(qredit)


@pytest.mark.e2e
@pytest.mark.slow
def test_chain_stays_the_function_beside_a_module_of_that_name():
    """In a new process, which has not imported the former module."""
    code = "import qredit.chain, qredit; from qredit import chain; assert callable(chain) and qredit.chain is chain"
    ended = python(code)
    assert ended.returncode == 0, ended.stderr


def test_a_name_that_the_package_does_not_have_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'chian'"):
        qredit.chian  # noqa: B018


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        e2e("qredit.cli.main", ["tasks"]),
        ("rich.console", ["tasks"]),
        e2e("torch", ["train", "--dry-run"]),
        e2e("torch.nn", ["train", "--dry-run"]),
        e2e("transformers", ["eval"]),
        e2e("trl", ["train", "--max-grad-norm", "1"]),
    ],
)
def test_ctrl_c_while_libraries_are_imported_ends_in_one_line(name, argv):
    ended = python(INTERRUPTED.format(name=name, argv=argv))
    assert (ended.returncode, ended.stderr) == (130, "qredit: interrupted\n")
