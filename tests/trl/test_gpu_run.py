"""The run for a GPU at toy size on the CPU: its goals, its checks, its budget, and what it keeps when it is cut off."""

import json
import math
from dataclasses import replace

import pytest
from gpu_run import __main__ as command
from gpu_run import budget, gradients, versions
from gpu_run.goals import Goal, list_goals, token_bound
from gpu_run.plan import LARGE, REAL, SMALL, TOY
from gpu_run.pocket_steps import STEPS, learned
from gpu_run.results import Results
from gpu_run.sections import Section, list_sections, run_sections
from packaging.requirements import Requirement

from qredit.trl.bench.size import Size
from tests.support.paths import ROOT


@pytest.mark.e2e
@pytest.mark.slow
def test_the_whole_run_at_toy_size(tmp_path, capsys):
    """Every section measures, and a result goes into a page with card and date, unless it is a toy's."""
    assert command.main(["--toy", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    path, page = tmp_path / "results.json", tmp_path / "page.md"
    results = json.loads(path.read_text())
    sections = results["sections"]
    assert [name for name in sections if name != "versions"] == [section.name for section in list_sections(TOY)]
    assert not any({"error", "skipped"} & found.keys() for found in sections.values())
    for name, lora_r in (("12/11/2 full", None), ("16/12/2 LoRA", 2)):
        rows = sections[name]["rows"]
        assert [(row["phase"], row["objective"]) for row in rows] == [
            ("sample", "garl"),
            ("update", "grpo"),
            ("update", "garl"),
            ("step", "garl"),
        ]
        assert all(row["ratio"] > 0 and row["rounds"] == 1 for row in rows)
        assert (sections[name]["not_shared"], sections[name]["passes"]) == (None, 1)
        assert (sections[name]["trained"] == sections[name]["parameters"]) is (lora_r is None)
    assert sections["gradients"]["passed"] is sections["pocket"]["passed"] is True
    assert "12/11/2 full, garl: update, useful tokens/s | 13,000" in shown

    page.write_text("before\n<!-- gpu -->\nstale\n<!-- /gpu -->\nafter\n")
    assert command.main(["--write", str(path), "--page", str(page)]) == 2
    assert "toy" in capsys.readouterr().err
    path.write_text(json.dumps(results | {"toy": False, "card": "NVIDIA H200"}))
    assert command.main(["--write", str(path), "--page", str(page)]) == 0
    text = page.read_text()
    assert f"NVIDIA H200, {results['date']}" in text
    assert "| 16/12/2 LoRA | step | garl |" in text
    assert "stale" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_the_token_bound_and_the_goals_by_hand():
    assert token_bound(Size(1536, 512, 32)) == pytest.approx(2048 * 32 / (1536 + 32 * 512))
    row = {"prompt": 6, "completion": 2, "m": 3, "objective": "garl", "ratio": 1.5, "tokens_per_second": 12_999.0}
    sections = {
        "6/2/3 full": {"rows": [row | {"phase": "update"}, row | {"phase": "step", "ratio": 0.99}]},
        "6/2/3 LoRA": {"rows": [row | {"phase": "update", "ratio": 1.7}]},
        "train": {"size": "6/2/3", "seconds": {"trl": [3.0, 3.0], "qredit": [2.0, 2.0]}},
    }
    assert [(goal.wanted, goal.reached, goal.met) for goal in list_goals(sections)] == [
        (0.8 * 2, 1.5, False),
        (13_000, 12_999.0, False),
        (1.0, 0.99, False),
        (0.8 * 2, 1.7, True),
        (1.0, 1.5, True),
    ]
    assert Goal("as wanted", 1.0, 1.0).met


@pytest.mark.parametrize(
    ("shared", "half", "shared_half", "passes"),
    [(1e-6, 0.01, 0.014, True), (2e-3, 0.01, 0.01, False), (1e-6, 0.01, 0.016, False), (math.nan, 0.01, 0.01, False)],
)
def test_sharing_may_add_rounding_and_no_more(shared, half, shared_half, passes):
    assert gradients.agrees({"float32 shared": shared, "bf16": half, "bf16 shared": shared_half}) is passes


def test_the_check_of_gradients_sees_a_wrong_position(monkeypatch):
    def shifted(rows):
        packed = gradients.pack(rows)
        return replace(packed, positions=packed.positions.clamp(max=packed.positions.max() - 1))

    monkeypatch.setitem(gradients.LAYOUTS, "shared", shifted)
    found = list(gradients.check_gradients(TOY, math.inf))
    assert found[-1] == {"passed": False}


@pytest.mark.parametrize(
    ("change", "passes"),
    [({}, True), ({"loss": [math.nan] * STEPS}, False), ({"answer/nll_per_token": [2.0] + [2.5] * (STEPS - 1)}, False)],
)
def test_ten_steps_must_be_finite_and_teach(change, passes):
    numbers = {"loss": [0.1] * STEPS, "grad_norm": [1.0] * STEPS, "answer/nll_per_token": [3.0] * 5 + [2.0] * 5}
    assert learned(numbers | change) is passes
    assert not learned({name: values[1:] for name, values in numbers.items()})


def test_a_round_is_begun_where_one_like_the_last_fits(monkeypatch):
    clock = iter([0.0, 4.0, 9.0])
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(clock))
    lasts = budget.fits_another(10.0)
    assert lasts()  # at 4, after 4 seconds
    assert not lasts()  # at 9, after 5


def test_findings_are_kept_where_a_section_breaks_off(tmp_path, monkeypatch):
    def broken(plan, end):
        yield {"known": 1}
        assert json.loads((tmp_path / "results.json").read_text())["sections"]["first"] == {"known": 1}
        raise RuntimeError("out of memory")

    def whole(plan, end):
        yield {"passed": True}

    parts = [Section("first", 5, broken), Section("second", 5, whole), Section("long", 1e9, whole)]
    monkeypatch.setattr("gpu_run.sections.list_sections", lambda plan: parts)
    told = []
    run_sections(TOY, Results(tmp_path / "results.json", {}), budget.time.monotonic() + 60, told.append)
    found = json.loads((tmp_path / "results.json").read_text())["sections"]
    assert found["first"]["error"] == "RuntimeError: out of memory"
    assert found["second"]["passed"] is True
    assert list(found["long"]) == ["skipped"]
    assert [line.split(":")[0] for line in told] == ["first", "first", "second", "long"]


def test_the_parts_of_a_run_fit_into_its_minutes():
    """Twenty seconds are left for imports; no part is left out for want of time before it."""
    assert sum(section.seconds for section in list_sections(REAL)) <= 60 * command.MINUTES - 20
    assert command.MINUTES < 9
    assert {(pair.size, pair.lora_r is None) for pair in REAL.pairs} == {
        (s, f) for s in (SMALL, LARGE) for f in (True, False)
    }


def test_a_missing_package_is_named_before_compute(monkeypatch, tmp_path, capsys):
    known = versions.installed()
    monkeypatch.setattr(versions, "installed", lambda: known | {"trl": None, "datasets": None})
    assert command.main(["--toy", "--out", str(tmp_path / "new")]) == 2
    assert "not installed: datasets, trl; make gpu-wheels" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert versions.outside({"trl": "1.15.0", "peft": known["peft"]}) == ["trl 1.15.0 (<1.17,>=1.16)"]


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_what_is_no_result_is_refused(text, tmp_path, capsys):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    assert command.main(["--write", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_carried_wheels_are_those_that_the_package_asks_for():
    lines = (ROOT / "experiments/gpu_run/wheels.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    asked: dict[str, Requirement] = {one.name: one for one in versions.requirements()}
    assert {"trl", "peft", "datasets"} <= pinned.keys()
    assert [name for name, own in pinned.items() if name in asked and own not in asked[name].specifier] == []
