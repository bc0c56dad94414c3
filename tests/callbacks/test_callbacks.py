"""Callbacks over protocols: each works on a run that is no trainer."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState

from qredit.callbacks.collapse_guard import LEARNING_RATE_FACTOR, CollapseGuard
from qredit.callbacks.decisions import DecisionWriter
from qredit.callbacks.sample_writer import SampleWriter
from qredit.callbacks.steering import Steering
from qredit.callbacks.validation import ValidationCallback
from qredit.engine.checkpoint import commit_checkpoint, find_newest_before
from qredit.engine.collective import SingleProcess
from qredit.evaluation.metrics import QuestionResult
from qredit.objectives.parsing import parse


def state(step=0, **changes):
    return TrainerState(global_step=step, is_world_process_zero=True, **changes)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- the guard


class Run:
    """Good until a step and again after another, bad between them; says what it was asked to do."""

    def __init__(self, folder, until, again=math.inf):
        self.folder = folder
        self.objective, self.until, self.again = parse("garl(q=0.75)"), until, again
        self.step_success, self.asked, self.collective = None, [], SingleProcess()

    def check_revertible(self, slower):
        self.asked.append(("check", slower))

    def find_checkpoint(self, step):
        return find_newest_before(self.folder, step)

    def restore_weights(self, checkpoint):
        self.asked.append(("restore", checkpoint.name))

    def scale_learning_rate(self, factor):
        self.asked.append(("slow down", factor))

    def step(self, number):
        good = number <= self.until or number > self.again
        self.step_success = [0.8 + 0.01 * n if good else 0.01 * n for n in range(8)]


def save(folder, step):
    """A whole checkpoint."""
    written = folder / "_writing" / f"checkpoint-{step}"
    written.mkdir(parents=True)
    (written / "weights").write_text(str(step))
    commit_checkpoint(written, folder / written.name)


def guarded(folder, action, steps, until=12, every=2, again=math.inf, now=None):
    """A guard after so many steps of such a run, which was saved every few steps."""
    run, guard, args = Run(folder, until, again), CollapseGuard(action), SimpleNamespace(output_dir=str(folder))
    now = now or state()
    guard.attach(run)
    for number in range(1, steps + 1):
        run.step(number)
        now.global_step, control = number, TrainerControl(should_save=number % every == 0)
        guard.on_step_end(args, now, control)
        if control.should_save:
            save(folder, number)
        if control.should_training_stop:
            break
    return run, guard, number


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        ("stop", [("check", False), ("restore", "checkpoint-10")]),
        ("roll_back", [("check", True), ("restore", "checkpoint-10"), ("slow down", LEARNING_RATE_FACTOR)]),
        ("paft", [("check", False), ("restore", "checkpoint-10"), ("slow down", 1.0)]),
    ],
)
def test_a_guard_asks_a_run_to_go_back(tmp_path, action, asked):
    """Good until step 12, seen at step 18; checkpoint 12 was judged by step 13, which was bad."""
    run, guard, ended = guarded(tmp_path, action, 20)
    assert run.asked == asked
    assert [one["step"] for one in guard.list_decisions()] == [18]
    assert ended == (18 if action == "stop" else 20)
    assert guard.now() == (parse("paft(q=0.75)") if action == "paft" else None)


def test_a_guard_goes_back_to_what_a_validation_chose(tmp_path):
    """Rotation keeps that checkpoint alone: 10, the newest good one, would be deleted."""
    run, *_ = guarded(tmp_path, "roll_back", 20, now=state(best_global_step=4, best_metric=0.9))
    assert ("restore", "checkpoint-4") in run.asked


def test_a_roll_back_forgets_what_was_saved_last(tmp_path):
    """Saved at 8 and, amid the collapse, at 16; rolled back at 18; as good as ever at 23, before the next save."""
    run, guard, _ = guarded(tmp_path, "roll_back", 23, every=8, again=18)
    assert ("restore", "checkpoint-8") in run.asked
    assert guard.watch.good
    assert guard.good == 8


def test_a_guard_goes_on_from_its_state(tmp_path):
    _, guard, _ = guarded(tmp_path, "paft", 20)
    again = CollapseGuard("paft")
    again.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert again.state_dict() == guard.state_dict()
    assert again.now() == guard.now() is not None


def test_a_guard_needs_no_callbacks(tmp_path):
    """An engine that has none tells its steering of each step: the guard does as it does among callbacks."""
    run = Run(tmp_path, 12, again=18)
    steering, facts = Steering(run, "roll_back"), {"p_hat": torch.zeros(1)}
    for number in range(1, 20):
        run.step(number)
        steering.end_step(number, facts, saves=number % 2 == 0)
        if number % 2 == 0:
            save(tmp_path, number)
    assert run.asked[:2] == [("check", True), ("restore", "checkpoint-10")]
    assert [one["step"] for one in steering.list_decisions()] == [18]
    assert (steering.learning_rate_share, steering.ended) == (LEARNING_RATE_FACTOR, False)
    assert steering.now() == run.objective


def test_steering_goes_on_with_what_a_part_asks_for(tmp_path):
    run = Run(tmp_path, 12)
    run.objective = parse("garl(q=auto())")
    steering = Steering(run, "paft")
    facts = {name: torch.full((4,), -0.5) for name in ("p_hat", "largest", "ess")}
    steering.guide.begin(facts, 4)
    assert steering.now() == steering.guide.now()
    assert steering.end_step(1, facts, saves=False) == {"guide/paft": 0.0}
    before = len(steering.guide.controller.recent)
    steering.guard.instead = True
    assert steering.now() == parse("paft(q=0.75)")
    assert steering.end_step(2, facts, saves=False) == {"guide/paft": 1.0}
    assert len(steering.guide.controller.recent) == before  # the guide is silent


# --- records


def test_decisions_are_kept_in_their_order_and_once(tmp_path):
    path, told = tmp_path / "decisions.jsonl", []
    guide, guard = ([{"step": 2, "change": "c", "reason": "r"}], [{"step": 1, "change": "b", "reason": "r"}])
    keeper = DecisionWriter(path)
    keeper.notify = told.append
    keeper.overrides = [SimpleNamespace(list_decisions=lambda: guide), SimpleNamespace(list_decisions=lambda: guard)]
    keeper.on_train_begin(None, state(), None)
    keeper.on_step_begin(None, state(2), None)
    guide.append({"step": 5, "change": "d", "reason": "r"})
    keeper.on_train_end(None, state(6), None)
    assert [line["step"] for line in lines(path)] == [1, 2, 5]
    assert told == ["after step 2: c; r", "after step 5: d; r"]
    resumed = DecisionWriter(path)
    resumed.overrides = keeper.overrides
    resumed.on_train_begin(None, state(6), None)
    resumed.on_step_begin(None, state(6), None)
    assert len(lines(path)) == 3


def test_the_first_group_is_kept_where_there_is_one(tmp_path):
    keeper = SampleWriter(tmp_path / "samples.jsonl", every=2)
    groups = {2: {"prompt": "p"}, 4: None}
    for step in (1, 2, 4):
        keeper.run = SimpleNamespace(first_group=lambda s=step: groups[s])
        keeper.on_step_end(None, state(step), None)
    assert lines(keeper.path) == [{"step": 2, "prompt": "p"}]


# --- validation


class Examined:
    """Right in so many of four answers; keeps what is logged."""

    def __init__(self, right):
        self.right, self.logged = right, {}

    def answers(self, examples, rewards, k, seed):
        return [answered(number < self.right) for number in range(len(examples))]

    def log_with_step(self, values):
        self.logged |= values


def answered(right):
    score = float(right)
    return QuestionResult("0", "a", ("a",) * 2, ("",) * 2, {"exact_match": (score,) * 2})


def validated(folder, right, step=4, now=None, main=True):
    told = []
    guard = SimpleNamespace(check=lambda *values: told.append(values))
    one = ValidationCallback(
        Path(folder) / "v.jsonl", [None] * 4, [SimpleNamespace(name="exact_match")], 2, 2, 0, guard
    )
    one.run, now, control = Examined(right), now or state(), TrainerControl()
    now.global_step, now.is_world_process_zero = step, main
    one.on_step_end(None, now, control)
    return one, now, control, told


def test_a_validation_is_written_logged_and_told(tmp_path):
    one, now, control, told = validated(tmp_path, right=3)
    (line,) = lines(one.path)
    assert (line["step"], line["questions"], line["p@1"]) == (4, 4, 0.75)
    assert one.run.logged == {f"validation/{name}": line[name] for name in line if name not in ("step", "questions")}
    assert [(step, value) for step, value, *_ in told] == [(4, 0.75)]
    assert control.should_save
    assert now.best_global_step == 4


def test_the_best_of_validations_is_remembered(tmp_path):
    now = state()
    for step, right in ((2, 2), (4, 3), (6, 1)):
        validated(tmp_path, right, step, now)
    assert (now.best_global_step, now.best_metric) == (4, 0.75)


def test_other_processes_decide_alike_and_write_nothing(tmp_path):
    one, now, control, told = validated(tmp_path, right=3, main=False)
    assert not one.path.exists()
    assert one.run.logged == {}
    assert (now.best_global_step, len(told), control.should_save) == (4, 1, True)


def test_between_validations_nothing_is_done(tmp_path):
    one, now, control, told = validated(tmp_path, right=3, step=3)
    assert not one.path.exists()
    assert (now.best_global_step, told, control.should_save) == (None, [], False)
