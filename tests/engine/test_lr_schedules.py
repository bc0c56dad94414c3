"""Schedules by name: their numbers, what a run's steps get of them, and that a run resumes with them."""

import io
import json
from statistics import median

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments, get_linear_schedule_with_warmup

from qredit.callbacks.metrics_file import MetricsWriter
from qredit.cli.main import main
from qredit.engine.lr_schedules import REGISTRY, refined, rex
from qredit.engine.lr_schedules.protocol import put_behind_warmup
from qredit.engine.lr_schedules.refined import filter_median, refine
from qredit.runs.warmup import WarmupSchedule
from tests.support.folders import data_file, flags, lines, model_folder, rows


def test_rex_is_the_formula_of_its_paper():
    made = rex().make()
    for over in (0.0, 0.25, 0.5, 0.9, 1.0):
        assert made(over) == pytest.approx((1 - over) / (0.5 + 0.5 * (1 - over)))
    assert rex(bend=0.0).make()(0.25) == 0.75


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_a_linear_rule_is_the_linear_schedule_of_transformers(warmup):
    weight = torch.nn.Parameter(torch.zeros(1))
    theirs = get_linear_schedule_with_warmup(torch.optim.SGD([weight], lr=1.0), warmup, 9)
    (factor,) = theirs.lr_lambdas
    ours = put_behind_warmup(rex(bend=0.0).make(), warmup, 9)
    assert [ours(step) for step in range(10)] == pytest.approx([factor(step) for step in range(10)])


NORMS = [4.0, 2.0, 2.5, 1.0, 9.0, 1.2, 0.8, 1.0, 2.0, 3.0, 2.2]


def test_refinement_is_that_of_the_official_code():
    """Its functions, run on these norms with a step of the last norm behind them; medians as its readme pads."""
    assert filter_median(NORMS, 3) == [4.0, 2.5, 2.0, 2.5, 1.2, 1.2, 1.0, 1.0, 2.0, 2.2, 3.0]
    expected = [0.123736, 0.305835, 0.451187, 0.277832, 1.0, 0.794134, 0.716668, 0.289784, 0.045766, 0.0196, 0.00527, 0]
    assert refine(NORMS, 2, 0.3) == pytest.approx(expected, abs=1e-6)
    expected = [0.443673, 0.666776, 0.766122, 0.569796, 1, 0.812925, 0.706122, 0.436735, 0.15102, 0.081633, 0.029932, 0]
    assert refine(NORMS, 1, 0.3) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("width", [1, 5, 11, 21])
def test_a_running_median_is_that_of_each_window(width):
    values = [*NORMS, *NORMS[::-1]]  # every value twice
    half, last = width // 2, len(values) - 1
    padded = [values[0]] * half + values + [values[last - over] for over in range(1, half + 1)]
    assert filter_median(values, width) == [median(padded[place : place + width]) for place in range(last + 1)]


def leave_run(folder, norms):
    folder.mkdir()
    told = [{"step": step, "grad_norm": norm} for step, norm in enumerate(norms, 1)]
    text = "".join(json.dumps(one) + "\n" for one in [{"step": 1, "loss": 2.0}, *told])
    (folder / "metrics.jsonl").write_text(text + '{"step": 99, "grad_no')
    return folder


def test_equal_norms_leave_the_linear_decay(tmp_path):
    made = refined(str(leave_run(tmp_path / "first", [3.0] * 7)), power=2).make()
    assert [made(place / 10) for place in range(11)] == pytest.approx([1 - place / 10 for place in range(11)])


def test_large_first_norms_make_a_warmup_in_a_run_of_any_length(tmp_path):
    norms = [8.0] * 10 + [1.0] * 90
    made = refined(str(leave_run(tmp_path / "first", norms)), power=1, smooth=0.05).make()
    assert made(0.05) < 0.2 < 0.9 < made(0.15)
    assert made(0.1337) == pytest.approx(made(0.13) + 0.37 * (made(0.14) - made(0.13)))


@pytest.fixture
def sft(tmp_path):
    data, network = data_file(tmp_path / "shown.jsonl", rows(6)), model_folder(tmp_path / "tiny")

    def run(name, status=0, **options):
        chosen = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / name, "prompts_per_step": 2}
        chosen |= {"steps": 4, "save_every": 1, "lr": 1e-2}
        assert main(["sft", "--quiet", *flags(**chosen | options)]) == status
        return tmp_path / name

    return run


@pytest.mark.parametrize("warmup", [0, 2])
def test_rates_go_on_through_a_checkpoint(warmup, tmp_path):
    """Of the schedule that an earlier run's norms call for: all along, or behind a warmup. No step has a rate of 0."""
    after = refined(str(leave_run(tmp_path / "first", NORMS)), power=1).make()

    def make_scheduler():
        args = TrainingArguments(str(tmp_path), warmup_steps=warmup, learning_rate=0.01, report_to=[], use_cpu=True)
        trainer = WarmupSchedule(torch.nn.Linear(1, 1), args)
        trainer.lr_schedule = after
        trainer.create_optimizer()
        return trainer.create_scheduler(4)

    def step(scheduler):
        (rate,) = set(scheduler.get_last_lr())
        scheduler.optimizer.step()
        scheduler.step()
        return rate

    whole, cut, again = (make_scheduler() for _ in range(3))
    rates = [step(whole) for _ in range(4)]
    shares = [0.5, after(0), after(1 / 3), after(2 / 3)] if warmup else [after(place / 4) for place in range(4)]
    assert rates == pytest.approx([0.01 * share for share in shares])
    assert [step(cut) for _ in range(2)] == rates[:2]
    file = io.BytesIO()
    torch.save([cut.state_dict(), cut.optimizer.state_dict()], file)
    states = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    for part, state in zip((again, again.optimizer), states, strict=True):
        part.load_state_dict(state)
    assert [step(again) for _ in range(2)] == rates[2:]


def test_a_run_takes_the_rates_and_resumes_with_them(sft, tmp_path, monkeypatch):
    earlier = str(leave_run(tmp_path / "first", NORMS))
    asked, made, make = {"warmup": 0, "lr_schedule": f"refined('{earlier}', power=1)"}, [], refined.make
    monkeypatch.setattr(refined, "make", lambda self: made.append(make(self)) or made[-1])
    whole = sft("whole", **asked)
    (after,) = made  # the other run is read once

    def read_rates(folder):
        return [line["learning_rate"] for line in lines(folder / "metrics.jsonl") if "learning_rate" in line]

    assert read_rates(whole) == pytest.approx([0.01 * after(place / 4) for place in range(4)])

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MetricsWriter, "on_step_begin", stop)
        cut = sft("cut", **asked, status=130)
    assert main(["sft", "--quiet", "--resume", "--output", str(cut)]) == 0
    assert read_rates(cut) == read_rates(whole)
    one, other = (load_file(folder / "final" / "model.safetensors") for folder in (cut, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr_schedule": "rx()"}, "unknown schedule 'rx'; did you mean 'rex'?"),
        ({"lr_schedule": "rex(bend=1)"}, "bend of rex must be a number between 0 and"),
        ({"lr_schedule": "refined('nowhere')"}, "missing 1 required"),
        ({"lr_schedule": "refined('nowhere', power=2)"}, "refined: cannot read nowhere/metrics.jsonl"),
        ({"lr_schedule": "refined('still', power=2)"}, "has 1 gradient norms above 0; two are needed"),
        ({"lr_schedule": "rex()", "lr_scheduler_type": "linear"}, "give lr_schedule or lr_scheduler_type"),
        ({"lr_schedule": "rex()", "lr_scheduler_kwargs": '{"a": 1}'}, "give lr_schedule or lr_scheduler_type"),
        ({"lr_schedule": "refined('odd', power=2)"}, "has 0 gradient norms above 0; two are needed"),
    ],
    ids=str,
)
def test_a_schedule_that_cannot_be_had_is_said_at_once(given, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qredit.runs.train.load_trainable_model", None)
    leave_run(tmp_path / "still", [1.0, 0.0])
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "metrics.jsonl").write_text('{"grad_norm": 1.0}\n' * 3 + "[" * 100_000 + "\n")
    assert main(["train", *flags(**given)]) == 2
    assert words in capsys.readouterr().err


def test_every_schedule_begins_high_and_ends_at_nothing(tmp_path):
    run = str(leave_run(tmp_path / "first", NORMS))
    made = {"rex": rex(), "refined": refined(run, power=2)}
    assert made.keys() == REGISTRY.keys()
    for rule in made.values():
        values = [rule.make()(place / 50) for place in range(51)]
        assert values[-1] == 0.0
        assert all(0.0 < value <= 1.0 for value in values[:-1])
