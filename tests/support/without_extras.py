"""What must work, and what must say which extra is missing, where the package has its core dependencies alone.

Run by `make test-wheel`, in an environment of its own, on the wheel that would be published.
"""

import importlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tests.support.paths import ROOT

ABSENT = ("trl", "transformers", "accelerate", "datasets", "peft", "verl", "vllm", "math_verify", "matplotlib", "numpy")
CORE = ("torch", "jaxtyping", "yaml", "rich", "jinja2", "markupsafe")
"""The modules of the core dependencies."""
FOLDERS = (
    *("utils", "stats", "core", "tasks", "rewards", "credit", "penalties", "testing", "objectives", "catalog"),
    *("rollouts", "data", "curricula", "pocket", "control", "evaluation", "report", "lab", "cli"),
)
"""Those of the package of which every module is imported by the core alone."""
SCRIPTS = ("qredit.rewards.math_worker",)
"""Run by path in processes of their own, never imported."""
RUN = ROOT / "tests" / "golden" / "former" / "full"
# What is typed, the exit status, and what is said: on standard output, or in the one line of an error.
COMMANDS: Sequence[tuple[str, int, str]] = (
    ("--help", 0, "Train reasoning models"),
    ("objectives", 0, "garl"),
    ("objectives garl", 0, "amplified_likelihood"),
    ("tasks", 0, "pocket-hotpot"),
    ("train --help", 0, "--prompts-per-step"),
    (f"report {RUN}", 0, "report.html"),
    ("train", 2, "qredit train needs trl, transformers, accelerate, datasets, peft"),
    ("train", 2, "pip install 'qredit[trl]'"),
    ("train --max-grad-norm 1", 2, "pip install 'qredit[trl]'"),
    ("eval", 2, "pip install 'qredit[trl]'"),
    ("probe", 2, "pip install 'qredit[trl]'"),
    ("compare grpo()", 2, "pip install 'qredit[trl,report]'"),
    ("demo", 2, "pip install 'qredit[trl,report]'"),
    ("bench step", 2, "pip install 'qredit[trl]'"),
    ("verl-data pocket-dial OUT", 2, "pip install 'qredit[trl]' or pip install 'qredit[verl]'"),
    ("lab escort", 2, "pip install 'qredit[report]'"),
)


def nothing_else_is_installed() -> None:
    """The environment holds no engine and no extra."""
    there = [name for name in ABSENT if find_spec(name) is not None]
    assert not there, f"not the core alone: {', '.join(there)}"
    from qredit import __file__ as installed

    assert not Path(installed).is_relative_to(ROOT / "src"), f"{installed} is the checkout, not what was installed"


def every_file_is_installed() -> None:
    """Those of the checkout, with the models, the page and the mark of types; and the version is the package's own."""
    import qredit

    def files(folder: Path) -> set[Path]:
        return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}

    there, wanted = files(Path(qredit.__file__).parent), files(ROOT / "src" / "qredit")
    assert there == wanted, f"not installed: {sorted(map(str, wanted - there))}; only there: {there - wanted}"
    assert Path("py.typed") in there
    assert version("qredit") == qredit.__version__


def every_module_imports() -> None:
    """All of FOLDERS."""
    import qredit

    package = Path(qredit.__file__).parent
    paths = [path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths if path.parts[1] in FOLDERS}
    assert {name.split(".")[1] for name in names} == set(FOLDERS)
    for name in sorted(names.difference(SCRIPTS)):
        importlib.import_module(name)


def garl_credits_as_worked_by_hand() -> None:
    """Two rationales with p(y*|x,z) = 1/2 and 1/4, so w̄ = 3/8; at q = 3/4 and M = 2 M^q = 1.681793.

    a = w/w̄^q/M^q: .5/.479207/1.681793 = .620403 and half of it. c = a - (the other w)^¼/M^q: less .420448 and .5.
    """
    import torch

    from qredit.objectives.parsing import parse
    from qredit.testing.moments import make_group_batch
    from qredit.testing.policy import TabularPolicy

    answers = torch.tensor([0.0, 0.0, 0.0, 3.0]).double()
    answers[3] = answers[3].log()
    policy = TabularPolicy(torch.cat([torch.zeros(4).double(), answers]), symbols=2, length=1, answers=2)
    batch = make_group_batch(
        policy, torch.tensor([[0, 2]]), with_response=False
    )  # z·Y + y: one rollout of each rationale
    found = parse("garl(0.75)").credit(batch)
    wanted = torch.tensor([[0.199955, 0.0, 0.620403], [-0.189798, 0.0, 0.310202]])
    assert torch.allclose(found.float(), wanted, atol=2e-6), found


def the_laws_of_an_objective_hold() -> None:
    """Those that a method's author would run: the mean by enumeration, spans, micro-batches, needs."""
    from qredit.objectives.parsing import parse
    from qredit.testing.laws import LAWS, Subject

    subject = Subject(parse("garl(q=0.75, normalize=False)"), commitment=0.75)
    laws = [law for law in LAWS if law.applies(subject)]
    assert {"leading bias", "consistent off policy"} <= {law.name for law in laws}
    for law in laws:
        law.check(subject)


def the_commands_say_what_they_need() -> None:
    """Those that need an extra end with status 2 and one line, before anything else; the others run."""
    program = str(Path(sys.executable).with_name("qredit"))
    with tempfile.TemporaryDirectory() as folder:
        for words, status, told in COMMANDS:
            ended = subprocess.run([program, *words.split()], cwd=folder, capture_output=True, text=True, timeout=120)
            assert ended.returncode == status, f"qredit {words}: status {ended.returncode}\n{ended.stderr}"
            assert told in (ended.stderr if status else ended.stdout), f"qredit {words}: {ended.stdout}{ended.stderr}"
            lines = ended.stderr.splitlines()
            assert len(lines) == (1 if status else 0), f"qredit {words}:\n{ended.stderr}"


def refused(act: Callable[[], object], told: str) -> None:
    """`act` ends in the one error that names the command to install what is missing, and is an ImportError."""
    from qredit import QreditError

    said = "nothing"
    try:
        act()
    except ImportError as error:
        said = str(error) if isinstance(error, QreditError) else repr(error)
    assert told in said, f"{told!r} was expected, {said} was said"


def python_says_what_it_needs() -> None:
    """What is called from Python: the trainer, the scorer of formulas, files of tables."""
    from qredit.rewards import make_reward_function, math_equal
    from qredit.rewards.judge import ProcessRewardModel
    from qredit.tasks.readers import read_file

    assert math_equal("12", ["$12$"]) == 1.0
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "data.parquet"
        table.write_bytes(b"PAR1")
        refused(lambda: read_file(table), "pip install 'qredit[trl]'")
    refused(lambda: importlib.import_module("qredit.trl"), "qredit.trl needs trl, ")
    refused(lambda: importlib.import_module("qredit.trl.trainer"), "pip install 'qredit[trl]'")
    refused(lambda: make_reward_function("math_equal"), "pip install 'qredit[math]'")
    refused(lambda: math_equal(r"\sqrt{8}", [r"2\sqrt{2}"]), "pip install 'qredit[math]'")
    refused(lambda: ProcessRewardModel.load("judge"), "pip install 'qredit[trl]'")


CHECKS = (
    nothing_else_is_installed,
    every_file_is_installed,
    every_module_imports,
    garl_credits_as_worked_by_hand,
    the_laws_of_an_objective_hold,
    the_commands_say_what_they_need,
    python_says_what_it_needs,
)


def main() -> None:
    """Run the checks in order; the first that fails ends the script with its traceback."""
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # torch, which works without it
    for check in CHECKS:
        began = time.perf_counter()
        check()
        print(f"{check.__name__.replace('_', ' ')}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
