"""How commands end: signals leave no process and no torn file, full disks are one line and cost no older file."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from qredit import QreditError
from qredit.cli import main
from qredit.cli.lab_plots import plot_panels
from qredit.engine.checkpoint import find_damage
from qredit.lab.finding import Curve, FindingPanel
from qredit.report.page import GENERATOR_TAG
from qredit.rewards import math_worker
from qredit.utils.atomic_files import append_text, atomic_write, write_text_atomic
from tests.support.folders import SHORT, data_file, flags, lines, model_folder
from tests.support.marks import e2e
from tests.support.paths import ROOT
from tests.support.processes import running, until

# `qredit compare` whose jobs do nothing but sleep, in processes of their own, and that imports no trainer.
COMPARE = """
import functools, pathlib, sys
sys.path.insert(0, {root!r})
from tests.support import sleepers
from qredit.cli import compare_command, main
from qredit.runs.parallel import run_parallel
def run(given, out, progress):
    run_parallel("compare", [functools.partial(sleepers.sleep, pathlib.Path({folder!r}))], progress, 1)
compare_command.run = run
if __name__ == "__main__":
    sys.exit(main(["compare", "grpo()"]))
"""
SLEEPING_WORKER = """
import sys, time
sys.path.insert(0, {folder!r})
import math_worker
math_worker.OPERATIONS = {{"sleep": lambda: time.sleep(600)}}
math_worker.main()
"""


@contextlib.contextmanager
def started(words, **options):
    """A process in a session of its own, so that a signal reaches it alone; nothing of it is left afterwards."""
    process = subprocess.Popen(words, text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


# --- processes


@pytest.mark.e2e
def test_the_runs_of_a_comparison_end_with_it(tmp_path):
    """By SIGTERM; SIGINT and SIGKILL: test_compare.py."""
    script = tmp_path / "script.py"
    script.write_text(COMPARE.format(root=str(ROOT), folder=str(tmp_path)))
    with started([sys.executable, str(script)], stderr=subprocess.PIPE) as process:
        assert until(lambda: list(tmp_path.glob("*.pid")))
        (worker,) = (int(path.stem) for path in tmp_path.glob("*.pid"))
        assert running(worker)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert until(lambda: not running(worker), 60)
        assert process.communicate()[1].endswith("qredit: terminated\n")


def test_the_judging_process_ends_with_its_parent():
    code = SLEEPING_WORKER.format(folder=str(Path(math_worker.__file__).parent))
    with started([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == "ready\n"
        worker.stdin.write('["sleep"]\n')
        worker.stdin.flush()
        time.sleep(0.5)
        assert running(worker.pid)
        worker.stdin.close()  # as the system does when the parent ends
        assert worker.wait(30) == 0


def test_a_process_on_a_lifeline_ends_when_it_is_let_go():
    code = (
        "import sys, time; from qredit.utils.parent_process import exit_with_parent; "
        "exit_with_parent(sys.stdin.buffer.read); print('ready', flush=True); time.sleep(600)"
    )
    with started([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        assert running(process.pid)
        process.stdin.close()
        assert process.wait(30) == 1


@pytest.mark.long
def test_a_run_that_gets_sigterm_leaves_whole_files(tmp_path):
    """As a process of its own; that a run in this one ends and resumes after SIGTERM: runs/test_run.py."""
    folder, network, data = tmp_path / "run", model_folder(tmp_path / "tiny"), data_file(tmp_path / "data.jsonl")
    chosen = {"task": "jsonl", "data": data, "model": network, "output": folder, "save_every": 1, "seed": 1}
    words = flags(**chosen, **SHORT | {"steps": 5000})
    with started([sys.executable, "-m", "qredit", "train", *words], stderr=subprocess.PIPE) as process:
        assert until(lambda: (folder / "metrics.jsonl").exists() and list(folder.glob("checkpoint-*")))
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 143
    assert said.splitlines()[-1].startswith("qredit: terminated; ")
    assert "Traceback" not in said
    assert yaml.safe_load((folder / "config.yaml").read_text())["steps"] == 5000
    assert json.loads((folder / "record.json").read_text())["seed"] == 1
    assert [find_damage(path) for path in folder.glob("checkpoint-*")].count(None) >= 1
    assert all(find_damage(path) is None for path in folder.glob("checkpoint-*"))
    assert not list(folder.glob(".writing-*"))


def test_sigterm_is_left_to_whoever_handles_it(capsys):
    ours = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert main(["--version"]) == 0
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, ours)


# --- files


@contextlib.contextmanager
def small_disk(size):
    """No file of this process may grow beyond `size` bytes, as on a disk that is full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "made" / "file.txt"
    write_text_atomic(path, "older")
    with contextlib.suppress(ZeroDivisionError), atomic_write(path) as aside:
        aside.write_text("half of the new")
        raise ZeroDivisionError
    with small_disk(100), pytest.raises(QreditError, match=r"cannot write .*file\.txt: File too large"):
        write_text_atomic(path, 200 * "newer")
    assert path.read_text() == "older"
    assert list(path.parent.iterdir()) == [path]
    write_text_atomic(path, "newer")
    assert path.read_text() == "newer"


def test_lines_that_cannot_be_appended_name_their_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with small_disk(100), pytest.raises(QreditError, match=r"cannot write .*metrics\.jsonl: File too large"):
        append_text(path, 200 * "line\n")


def test_a_plot_that_does_not_fit_leaves_the_older_one(tmp_path):
    panel = FindingPanel(title="", x="", y="", curves=(Curve("q", 0.5, "measured", (1.0, 2.0), (1.0, 2.0)),), log="")
    path = tmp_path / "plot.png"
    plot_panels([panel], path)
    older = path.read_bytes()
    with small_disk(1000), pytest.raises(QreditError, match=r"cannot write .*plot\.png"):
        plot_panels([panel], path)
    assert path.read_bytes() == older


FULL = [["tasks"], *map(e2e, (["--help"], ["--version"], ["train", "--help"], ["objectives", "--json"]))]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", FULL)
def test_an_output_that_is_full_is_one_line(words):
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "qredit", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ran.returncode, ran.stderr) == (1, "qredit: cannot write the output: No space left on device\n")


@pytest.fixture
def train(tmp_path, capsys):
    network, data = model_folder(tmp_path / "tiny"), data_file(tmp_path / "data.jsonl")

    def run(size, **options):
        chosen = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / "run", **SHORT, **options}
        capsys.readouterr()
        with small_disk(size):
            status = main(["train", "--quiet", *flags(**chosen)])
        return status, capsys.readouterr().err, tmp_path / "run"

    return run


@pytest.mark.parametrize(
    ("size", "options", "name"),
    [
        e2e(100, {}, "config.yaml"),
        (30_000, {"save_every": 1}, "checkpoint-1"),
        e2e(30_000, {"save_every": 0}, "final"),
    ],
)
def test_a_run_on_a_full_disk_names_what_it_could_not_write(train, size, options, name):
    status, said, folder = train(size, **options)
    assert status == 2
    assert said.count("\n") == 1
    assert said.startswith(f"qredit: cannot write {folder / name}: ")
    assert not (folder / name).exists()


@pytest.mark.e2e
def test_a_report_that_does_not_fit_leaves_the_older_one(train, tmp_path, capsys):
    status, _, folder = train(resource.RLIM_INFINITY)
    page = tmp_path / "report.html"
    assert status == 0
    assert lines(folder / "metrics.jsonl")
    page.write_text(GENERATOR_TAG)
    capsys.readouterr()
    with small_disk(1000):
        assert main(["report", str(folder), "--output", str(page)]) == 2
    assert capsys.readouterr().err == f"qredit: cannot write {page}: File too large\n"
    assert page.read_text() == GENERATOR_TAG
