"""qredit compare: equal rollouts for every objective, one table and one figure."""

import json
import signal
import subprocess
import sys

import pytest
import torch
import yaml

from qredit.cli.main import main
from qredit.objectives.parsing import parse
from qredit.runs import compare
from qredit.runs.compare import ComparisonSettings, ObjectiveResults, plot_comparison, slugify
from qredit.runs.experiment import EvalSpec, Variant, collect_facts
from qredit.runs.load import load_examples
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError
from tests.support.folders import data_file, flags, lines, model_folder, rows
from tests.support.paths import ROOT
from tests.support.processes import running, until


def run_here(title, jobs, console, workers, threads):
    torch.set_num_threads(threads)  # a kept result knows how many it was made with
    return [job() for job in jobs]


@pytest.fixture
def in_this_process(monkeypatch):
    """The runs of a comparison, one behind the other: a process for them imports for ten seconds."""
    monkeypatch.setattr(compare, "run_parallel", run_here)


def test_two_objectives_are_compared_and_kept(tmp_path, capsys, in_this_process):
    words = "compare grpo() garl(q=0.75) --steps 1 --seeds 1 --questions 1 --workers 1 --json --quiet"
    words += " --m 2 --prompts-per-step 2 --max-completion-length 16 --answer-budget 8"
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
        (["grpo()", "--task", "finqa"], "task finqa has no pocket model"),
        (["grpo()", "--reward", "no_such_module:reward"], "cannot import 'no_such_module:reward'"),
        (["grpo()", "--task", "jsonl", "--data", "nowhere.jsonl", "--model", "owner/name"], "nowhere.jsonl"),
        (["grpo()", "--m", "1"], "m, the rollouts per prompt, must be at least 2"),
        (["grpo()", "--seeds", "0"], "seeds"),
        (["sft(steps=4)"], "says what comes before a run, but not which: 'sft(steps=4) then grpo()'"),
        (["sft() then grpo()"], "sft needs steps"),
        (["sft(steps=4, rat=1) then grpo()"], "unknown argument of sft 'rat'; Choices: lr, rationales, steps"),
        (["sft(steps=0) then grpo()"], "steps must be at least 1"),
        (["stf(steps=4) then grpo()"], "unknown stage before 'then' 'stf'; did you mean 'sft'?"),
        (["sft(steps=4) then gpo()"], "unknown objective or stage 'gpo'"),
    ],
)
def test_what_cannot_be_compared_is_said_before_any_run(argv, words, tmp_path, capsys):
    assert main(["compare", *argv, "--output", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: 2", "nothing to compare: give objectives, or --config FILE with a list of them"),
        ("objectives: grpo()", "must be a list of texts such as 'garl(q=0.75)', got 'grpo()'"),
        ("objectives: ['grpo()']\nstep: 2", "unknown option of compare in {file} 'step'; did you mean 'steps'?"),
        ("objectives: ['grpo()']\nseed: 2", "unknown option of compare in {file} 'seed'; did you mean 'seeds'?"),
        ("objectives: ['gral()']", "unknown objective or stage 'gral'"),
    ],
)
def test_a_comparison_that_a_file_cannot_hold_is_said(text, words, tmp_path, capsys):
    file = tmp_path / "arms.yaml"
    file.write_text(text)
    assert main(["compare", "--config", str(file), "--output", str(tmp_path / "out")]) == 2
    assert words.format(file=file) in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted((ROOT / "recipes" / "compare").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_recipe_is_a_comparison_and_flags_win_over_it(file, tmp_path, monkeypatch):
    seen = []

    def look(*given):
        seen.append(given)
        raise QreditError("seen")

    monkeypatch.setattr("qredit.runs.compare.compare_objectives", look)
    assert main(["compare", "--config", str(file), "--steps", "7", "--output", str(tmp_path)]) == 2
    objectives, settings, *_ = seen[0]
    assert (objectives[0], settings.steps, settings.task, settings.style) == (
        "grpo()",
        7,
        *file.stem.rsplit("-", 1),
    )
    assert len(objectives) == len({str(parse(each)) for each in objectives}) == 7


@pytest.mark.e2e
def test_an_arm_may_fine_tune_first(tmp_path, capsys, in_this_process):
    """Rationales, by heart and then sampled: GRPO begins where fine-tuning ended, with as many rollouts as without."""
    arms = ["sft(steps=12, rationales=True) then grpo()", "grpo()"]
    words = "--steps 1 --seeds 1 --questions 1 --workers 1 --subset 96 --json --quiet --style cold"
    assert main(["compare", *arms, *words.split(), "--output", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["objective"] for row in found["rows"]] == arms
    folder = tmp_path / "sftsteps12-rationalesTrue-then-grpo-0"
    first, plain = (lines(one / "run" / "metrics.jsonl")[0] for one in (folder, tmp_path / "grpo-0"))
    assert (first["reward"] > 0.5, plain["reward"]) == (True, 0)
    shown, trained, alone = (
        yaml.safe_load((one / "config.yaml").read_text())
        for one in (folder / "sft", folder / "run", tmp_path / "grpo-0" / "run")
    )
    assert trained["model"] == str(folder / "sft" / "final")
    assert (shown["steps"], shown["seed"], shown["subset"], shown["rationales"]) == (12, 0, "96", True)
    assert {name for name in alone if trained[name] != alone[name]} == {"model"}
    assert trained.keys() - alone.keys() == {"max_completion_length", "answer_budget"}
    facts = json.loads((folder / "arm.json").read_text())
    assert facts["warm_start"] == {"steps": 12, "lr": None, "rationales": True}


def test_every_run_has_the_same_rollouts():
    settings = ComparisonSettings(iterations=2)
    one, other = settings.options("grpo()", 1), settings.options("dapo()", 1)
    assert one.training == {"num_iterations": 2}
    assert (one.m, one.prompts_per_step, one.steps, one.seed) == (
        other.m,
        other.prompts_per_step,
        other.steps,
        other.seed,
    )


def test_a_comparison_that_was_kept_is_still_the_same():
    """What a kept result is known by: pocket comparisons of before own data and models were taken."""
    assert ComparisonSettings().options("grpo()", 1).changed() == {
        "style": "warm", "objective": "grpo()", "steps": 60, "lr": 3e-4, "seed": 1, "save_every": 0, "cpu": True,
    }  # fmt: skip
    again = ComparisonSettings(style="cold", steps=40, iterations=2).options("dapo()", 0).changed()
    assert again == {
        "objective": "dapo()", "steps": 40, "lr": 3e-4, "save_every": 0, "cpu": True,
        "training": {"num_iterations": 2},
    }  # fmt: skip
    facts = collect_facts(Variant(ComparisonSettings().options("grpo()", 1)), ComparisonSettings().held)
    assert set(facts) == {"options", "trained", "held", "weights", "device", "threads"}
    assert facts["held"] == {"questions": 128, "k": 16, "seed": 1, "split": "test"}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The words that compare on a model, a file and a reward of the user's; the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_reward.py").write_text(
        "def by_level(completions, level, **columns):\n    return [float(one) for one in level]\n"
    )
    data = data_file(tmp_path / "mine.jsonl", rows(8, level=lambda n: n % 2))
    options = {
        "task": "jsonl", "data": data, "model": model_folder(tmp_path / "tiny"), "reward": "own_reward:by_level",
        "m": 2, "prompts_per_step": 2, "max_completion_length": 8, "answer_budget": 3, "steps": 1, "seeds": 1,
        "questions": 3, "output": tmp_path / "out",
    }  # fmt: skip
    path = list(sys.path)
    yield options
    sys.path[:] = path
    sys.modules.pop("own_reward", None)


@pytest.mark.e2e
def test_own_data_model_and_reward_are_compared(own, tmp_path, capsys, monkeypatch):
    """In a process of its own, which has to find the reward's module too; what it kept is then read in this one."""
    argv = ["compare", "grpo()", *flags(**own), "--json", "--quiet"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["held_out"], found["held_out_of"]) == (3, str(own["data"]))
    (row,) = found["rows"]
    config = yaml.safe_load((tmp_path / "out" / "grpo-0" / "run" / "config.yaml").read_text())
    assert (config["hold_out"], config["m"], config.get("lr"), config.get("cpu", False)) == (3, 2, None, False)
    everything = data_file(tmp_path / "all.jsonl", rows(8, level=lambda n: n % 2))
    options = TrainOptions(task="jsonl", data=str(everything), hold_out=3)
    held, trained = (load_examples(options, split) for split in ("validation", "train"))
    assert (len(held), len(trained)) == (3, 5)
    assert row["p@1"]["mean"] == pytest.approx(sum(one.columns["level"] for one in held) / 3)
    asked = {lines_of["prompt"] for lines_of in lines(tmp_path / "out" / "grpo-0" / "run" / "samples.jsonl")}
    assert not asked & {one.prompt for one in held}
    made = (tmp_path / "out" / "grpo-0" / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(compare, "run_parallel", run_here)
    assert main(argv) == 0
    assert (tmp_path / "out" / "grpo-0" / "result.json").stat().st_mtime_ns == made


@pytest.mark.parametrize("changed", ["mine.jsonl", "own_reward.py"])
def test_a_result_is_made_anew_where_data_or_reward_has_changed(changed, own, tmp_path):
    named = {name: str(own[name]) for name in ("task", "data", "model", "reward")}
    arm, held = Variant(TrainOptions(**named, hold_out=3)), EvalSpec(questions=3, split="validation")
    before = collect_facts(arm, held)
    assert collect_facts(arm, held) == before
    with (tmp_path / changed).open("a") as file:
        file.write('{"prompt": "What is 9?", "answer": "9", "level": 1}\n' if changed.endswith("l") else "# new\n")
    assert collect_facts(arm, held) != before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"questions": 8}, "hold_out=8 of them are held out"),
        ({"model": "no/such/model"}, "no model folder"),
        ({"reward": "own_reward:missing"}, "cannot import 'own_reward:missing'"),
    ],
)
def test_what_of_ones_own_is_no_use_is_said_before_any_run(options, words, own, tmp_path, capsys):
    assert main(["compare", "grpo()", *flags(**own | options)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_data_with_splits_is_compared_on_its_test_split(tmp_path):
    for name, count in (("train", 5), ("test", 3)):
        data_file(tmp_path / f"{name}.jsonl", rows(count, prompt=lambda n, name=name: f"{name} {n}"))
    base = TrainOptions(task="jsonl", data=str(tmp_path), model="owner/name")
    settings = ComparisonSettings(task="jsonl", base=base, questions=2)
    assert (settings.held.split, settings.options("grpo", 0).hold_out) == ("test", None)
    with pytest.raises(QreditError, match="hold_out is for a single file"):
        load_examples(TrainOptions(task="jsonl", data=str(tmp_path), hold_out=2), "train")


def test_folders_tell_objectives_apart():
    texts = ["grpo()", "grpo() | entropy_bonus(0.1)", "garl(q=0.75)", "garl(q=0.5)", "reinforce_pp()"]
    assert len({slugify(text) for text in texts}) == len(texts)
    wordy = [f"opsd(template='{{prompt}} {{answer}} {'word ' * 100}{end}')" for end in ("ä", "ö")]
    assert len({slugify(text) for text in wordy}) == 2
    assert all(len(slugify(text).encode()) < 200 for text in wordy)


@pytest.mark.parametrize(
    ("arm", "options", "words"),
    [
        ("garl(q=0.75, proposal=hint(share=0.5))", {"m": 3}, "3 rollouts per prompt cannot be shared"),
        (f"opsd(template='{{prompt}} {{answer}} {'!' * 490}')", {}, "prompts with the hint do not fit"),
    ],
)
def test_an_arm_that_shows_answers_is_refused_before_all(arm, options, words, tmp_path, capsys):
    sizes = {"m": 4, "steps": 1, "seeds": 1, "questions": 2, "output": tmp_path / "out"}
    assert main(["compare", "grpo()", arm, *flags(**sizes | options)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_cell_holds_mean_and_range(tmp_path):
    curves = {name: [[0.5, 1.0], [0.25, 0.5]] for name in ("success", "entropy", "length")}
    row = ObjectiveResults(
        "dapo()", {"p@1": [0.5, 0.75], "entropy": [1.0], "length": [3.0, 4.0], "seconds": [9.6, 10.4]}, curves
    )
    assert row.cell("p@1") == "62.5 [50.0, 75.0]"
    assert row.cell("entropy") == "1.00"
    assert row.cell("seconds") == "10 [10, 10]"
    plot_comparison([row], tmp_path / "figure.png", "two seeds")
    assert (tmp_path / "figure.png").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])  # SIGTERM: test_exits.py
def test_a_signal_ends_the_runs_that_are_going_on(sent, tmp_path):
    script = tmp_path / "sleepers.py"
    script.write_text(
        "import functools, os, pathlib, sys, time\n"
        "from rich.console import Console\n"
        "from qredit.runs.parallel import run_parallel\n"
        "def say_and_sleep(folder):\n"
        "    (pathlib.Path(folder) / f'{os.getpid()}.pid').touch()\n"
        "    time.sleep(300)\n"
        "if __name__ == '__main__':\n"
        "    jobs = [functools.partial(say_and_sleep, sys.argv[1])] * 4\n"
        "    run_parallel('sleep', jobs, Console(quiet=True), workers=1)\n"
    )
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.PIPE) as sleeper:
        try:
            assert until(lambda: list(tmp_path.glob("*.pid")))
            (worker,) = (int(path.stem) for path in tmp_path.glob("*.pid"))
            sleeper.send_signal(sent)
            assert sleeper.wait(timeout=200) != 0  # the jobs sleep for longer
            assert until(lambda: not running(worker), 60)
        finally:
            sleeper.kill()
