"""qredit compare: equal rollouts for every objective, one table and one figure."""

import json
import signal
import subprocess
import sys
import time

import pytest

from qredit.cli.main import main
from qredit.run.compare import Compared, Settings, plain, plot


def test_two_objectives_are_compared_and_kept(tmp_path, capsys):
    words = "compare grpo() garl(q=0.75) --steps 2 --seeds 1 --questions 2 --workers 1 --json --quiet"
    argv = [*words.split(), "--output", str(tmp_path)]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["objective"] for row in found["rows"]] == ["grpo()", "garl(q=0.75)"]
    assert set(found["rows"][0]) == {"objective", "p@1", "p@16", "entropy", "length", "seconds"}
    assert (tmp_path / "compare.png").stat().st_size > 10_000
    made = (tmp_path / "grpo-0" / "result.json").stat().st_mtime_ns
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert (tmp_path / "grpo-0" / "result.json").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["gral()"], "unknown objective or stage 'gral'; did you mean 'garl'"),
        (["grpo()", "--task", "finqa"], "compared on pocket tasks, got finqa"),
        (["grpo()", "--seeds", "0"], "seeds"),
    ],
)
def test_what_cannot_be_compared_is_said_before_any_run(argv, words, tmp_path, capsys):
    assert main(["compare", *argv, "--output", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_run_has_the_same_rollouts():
    settings = Settings(iterations=2)
    one, other = settings.options("grpo()", 1), settings.options("dapo()", 1)
    assert one.training == {"num_iterations": 2}
    assert (one.m, one.prompts_per_step, one.steps, one.seed) == (
        other.m,
        other.prompts_per_step,
        other.steps,
        other.seed,
    )


def test_folders_tell_objectives_apart():
    texts = ["grpo()", "grpo() | entropy_bonus(0.1)", "garl(q=0.75)", "garl(q=0.5)", "reinforce_pp()"]
    assert len({plain(text) for text in texts}) == len(texts)


def test_a_cell_holds_mean_and_range(tmp_path):
    curves = {name: [[0.5, 1.0], [0.25, 0.5]] for name in ("success", "entropy", "length")}
    row = Compared(
        "dapo()", {"p@1": [0.5, 0.75], "entropy": [1.0], "length": [3.0, 4.0], "seconds": [9.6, 10.4]}, curves
    )
    assert row.cell("p@1") == "62.5 [50.0, 75.0]"
    assert row.cell("entropy") == "1.00"
    assert row.cell("seconds") == "10 [10, 10]"
    plot([row], tmp_path / "figure.png", "two seeds")
    assert (tmp_path / "figure.png").exists()


def test_an_interrupt_does_not_wait_for_runs_that_are_going_on(tmp_path):
    script = tmp_path / "sleepers.py"
    script.write_text(
        "import functools, time\n"
        "from rich.console import Console\n"
        "from qredit.run.parallel import in_parallel\n"
        "if __name__ == '__main__':\n"
        "    print('going', flush=True)\n"
        "    in_parallel('sleep', [functools.partial(time.sleep, 300)] * 4, Console(quiet=True))\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None
        try:
            sleeper.stdout.readline()
            time.sleep(10)
            sleeper.send_signal(signal.SIGINT)
            assert sleeper.wait(timeout=60) != 0
        finally:
            sleeper.kill()
