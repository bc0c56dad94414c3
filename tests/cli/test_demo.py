"""The demo and what it is made of: arms that are kept, curves, its JSON; and, in the long tests, its claim."""

import json
from dataclasses import replace

import pytest

import qredit.runs.experiment as experiment
from qredit import QreditError
from qredit.cli import demo_command, main
from qredit.runs.curve_plots import plot_curves, smooth
from qredit.runs.experiment import compute_mean_and_range, load_or_compute
from qredit.runs.sparkline import averaged

SHORT = ("--steps", "1", "--questions", "1")


def demo(folder, capsys, *words):
    assert main(["demo", "--json", "--quiet", "--output", str(folder), *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.e2e
def test_the_demo_compares_four_objectives_and_keeps_them(tmp_path, capsys, monkeypatch):
    options = demo_command._options
    tiny = {"m": 2, "prompts_per_step": 2, "max_completion_length": 16, "answer_budget": 8}
    monkeypatch.setattr(demo_command, "_options", lambda *given: replace(options(*given), **tiny))
    found = demo(tmp_path / "demo", capsys, *SHORT)
    assert [(arm["objective"], arm["q"], arm["seed"], arm["steps"]) for arm in found["arms"]] == [
        ("grpo", None, 0, 1),
        ("garl", 0.0, 0, 1),
        ("garl", 0.75, 0, 1),
        ("paft", 0.75, 0, 1),
    ]
    assert all({"p@1", "p@16", "m@16", "seconds"} <= arm.keys() for arm in found["arms"])
    assert (found["base"]["p@1"], found["run"]) == (0.0, str(tmp_path / "demo"))
    assert (tmp_path / "demo" / "curves.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(experiment, "train", None)
    assert demo(tmp_path / "demo", capsys, *SHORT) == found
    assert main(["demo", "--quiet", "--output", str(tmp_path / "demo"), *SHORT]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The base model answers 0.0 % of the questions as asked" in shown
    assert "GRPO drew 4 rollouts; all of them were wrong" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--questions", "0"), "questions must be at least 1, got 0"),
        (("--seeds", "0"), "seeds must be at least 1, got 0"),
        (("--seed", "-1"), "seed must be at least 0, got -1"),
        (("--steps", "0"), "steps must be at least 1, got 0"),
        (("--task", "gsm8k"), "the demo runs on pocket tasks, got gsm8k"),
        (("--output", "/proc/none"), "cannot write to"),
    ],
)
def test_what_the_demo_cannot_use_is_said_before_compute(words, said, capsys, monkeypatch):
    monkeypatch.setattr(experiment, "sample_answers", None)
    assert main(["demo", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_result_is_left_alone(tmp_path):
    mine = tmp_path / "base"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(QreditError, match="holds something that is no result"):
        load_or_compute(mine, {"a": 1}, dict)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_result_is_made_once_for_same_facts_and_anew_for_others(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"value": len(made)}

    folder = tmp_path / "arm"
    assert [load_or_compute(folder, {"lr": lr}, make)["value"] for lr in (1, 1, 2, 2)] == [1, 1, 2, 2]
    assert load_or_compute(folder, {"lr": 2}, make)["wall"] >= 0


def test_a_result_that_was_interrupted_is_made_anew(tmp_path):
    def interrupted():
        (tmp_path / "arm" / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_compute(tmp_path / "arm", {"a": 1}, interrupted)
    assert load_or_compute(tmp_path / "arm", {"a": 1}, lambda: {"value": 1})["value"] == 1
    assert not (tmp_path / "arm" / "half").exists()


def test_a_long_curve_is_averaged_to_the_width_of_its_column():
    assert averaged([0.0, 0.5, 1.0], width=3) == [0.0, 0.5, 1.0]
    assert averaged([0.0, 1.0] * 8, width=4) == [0.5] * 4
    assert averaged([0.0, 1.0, 2.0, 4.0, 5.0], width=2) == [0.5, pytest.approx(11 / 3)]
    assert averaged([], width=4) == []


def test_smoothing_is_a_mean_over_the_last_few():
    assert smooth([0.0, 1.0, 1.0, 0.0], window=2) == [0.0, 0.5, 1.0, 0.5]


def test_spread_is_mean_smallest_and_largest():
    assert compute_mean_and_range([{"p": 0.1}, {"p": 0.4}, {"p": 0.1}], "p") == pytest.approx((0.2, 0.1, 0.4))


def test_curves_without_a_likelihood_are_drawn_too(tmp_path):
    arms = {"grpo()": [{"curve": [0.0, 0.5], "p_hat": [None, None]}], "x": [{"curve": [0.0], "p_hat": [-3.0]}]}
    plot_curves(arms, tmp_path / "c.png", "title")
    assert (tmp_path / "c.png").stat().st_size > 10_000


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grpo_and_q_0_stall_where_garl_and_paft_escape(seed, tmp_path, capsys):
    arms = {(arm["objective"], arm["q"]): arm["p@1"] for arm in demo(tmp_path, capsys, "--seed", str(seed))["arms"]}
    assert max(arms["grpo", None], arms["garl", 0.0]) < 0.01
    assert min(arms["garl", 0.75], arms["paft", 0.75]) > 0.6


def test_a_small_result_outlives_its_folder_and_an_options_name(tmp_path, monkeypatch):
    kept = tmp_path / "kept" / "arm.json"
    made = []

    def make(value):
        return lambda: made.append(value) or {"value": value}

    assert load_or_compute(tmp_path / "one", {"options": {"rate": 1}}, make(1), kept)["value"] == 1
    assert load_or_compute(tmp_path / "elsewhere", {"options": {"rate": 1}}, make(2), kept)["value"] == 1
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.setattr("qredit.runs.experiment.FORMER_KEYS", {"rate": "lr"})
    assert load_or_compute(tmp_path / "elsewhere", {"options": {"lr": 1}}, make(3), kept)["value"] == 1
    assert load_or_compute(tmp_path / "one", {"options": {"lr": 1}}, make(4))["value"] == 1
    kept.write_text('{"facts": {"options"')  # cut off
    assert load_or_compute(tmp_path / "elsewhere", {"options": {"lr": 1}}, make(5), kept)["value"] == 5
    assert load_or_compute(tmp_path / "elsewhere", {"options": {"lr": 2}}, make(6), kept)["value"] == 6
    assert made == [1, 5, 6]


def test_the_real_demo_asks_smollm2_and_tells_of_log_prob(tmp_path, capsys, monkeypatch):
    seen = []

    def found(arm, folder, held, console):
        seen.append((arm.trained, arm.options, held.questions))
        value = 0.0 if not arm.trained or arm.label == "grpo()" else 0.3
        p_hat = [None] * 3 if arm.label == "grpo()" else [-9.0, -5.0, -1.0]
        return {"label": arm.label, "objective": arm.label.split("(")[0], "q": None, "seed": arm.options.seed} | {
            **dict.fromkeys(("p@1", "p@16", "m@16"), value),
            "steps": arm.options.steps,
            "seconds": 1.0,
            "curve": [0.0, value, value],
            "p_hat": p_hat,
        }

    monkeypatch.setattr(experiment, "run_variant", found)
    monkeypatch.setattr("qredit.report.write.write_report", lambda folders, path: path)
    assert main(["demo", "--real", "--quiet", "--questions", "8", "--output", str(tmp_path)]) == 0
    assert [options.objective for _, options, _ in seen] == ["grpo()", "grpo()", "logprob()", "garl(q=0.75)"]
    assert {(o.model, o.m, o.prompts_per_step, o.lr, asked) for _, o, asked in seen} == {("smollm2", 8, 4, 3e-5, 8)}
    shown = " ".join(capsys.readouterr().out.split())
    assert "GRPO drew 448 rollouts; all of them were wrong" in shown
    assert "log-prob takes its logarithm" in shown
    assert "GARL amplifies it by q" in shown
    assert "PAFT" not in shown


def test_the_real_demo_is_one_of_the_two(capsys):
    assert main(["demo", "--real", "--full"]) == 2
    assert "not allowed with" in capsys.readouterr().err
