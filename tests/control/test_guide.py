"""Guidance during a run: how loud a q is, what the controller decides, when a run has collapsed, what a guard does."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

from qredit import QreditError
from qredit.callbacks.collapse_guard import CollapseGuard, has_guard_ended_run
from qredit.control import (
    CollapseDetector,
    GroupStats,
    QController,
    signal_level,
    smallest_sufficient_q,
    start_controller,
)
from qredit.control import collapse as collapse_module
from qredit.control import controller as controller_module
from qredit.control.auto_objective import can_switch_to_paft, find_auto, resolve_objective
from qredit.control.collapse import ValidationResult
from qredit.control.controller import MIN_LOG10_SIGNAL, WINDOW
from qredit.control.signal_level import Q_GRID
from qredit.engine.checkpoint import list_checkpoints
from qredit.objectives.parsing import parse
from tests.support.runs import length_reward, questions, trainer
from tests.support.tiny import model

M = 16


# --- loudness


def test_loudness_by_hand():
    """One rationale of four carries 1e-4: w̄ = 2.5e-5, and w/(w̄^q 4^q) = 1e-4^(1-q)."""
    mean = math.log10(2.5e-5)
    for q in (0.0, 0.25, 0.5, 1.0):
        assert signal_level([-4.0], [mean], 4, q) == pytest.approx(-4 * (1 - q))


def test_the_median_group_decides_and_one_without_p_is_silent():
    assert signal_level([-1.0, -4.0, -9.0], [-1.0, -4.0, -9.0], 1, 0.0) == -4.0
    assert signal_level([-4.0, -4.0, -math.inf], [-4.0, -4.0, -math.inf], 1, 0.0) == -4.0
    assert signal_level([-math.inf, -4.0, -math.inf], [-math.inf, -4.0, -math.inf], 4, 0.5) == -math.inf


def test_a_few_warm_prompts_do_not_leave_the_others_unheard():
    """Seven at 1e-14, one at 0.1: a mean would be loud at q = 0."""
    assert (
        smallest_sufficient_q([-14.0] * 7 + [-1.0], [-14.0] * 7 + [-1.0], M, MIN_LOG10_SIGNAL)
        == smallest_sufficient_q([-14.0], [-14.0], M, MIN_LOG10_SIGNAL)
        > 0.9
    )


@pytest.mark.parametrize("m", [2, 16, 64, 100, 128, 1024])
def test_every_group_size_can_reach_the_level_below_q_of_one(m):
    assert smallest_sufficient_q([-3.0], [-3.0], m, MIN_LOG10_SIGNAL) < 1
    assert smallest_sufficient_q([-0.5], [-0.5], m, MIN_LOG10_SIGNAL) == 0


def test_loudness_does_not_underflow_where_likelihoods_do():
    assert signal_level([-500.0], [-500.0], 1, 0.0) == -500.0


groups_of = st.lists(st.floats(-40, 0), min_size=1, max_size=8)


@given(groups_of, st.floats(-6, 0))
def test_quietest_is_loud_enough_and_nothing_smaller_is(p_hat, level):
    largest = [min(p + 0.5, 0.0) for p in p_hat]
    q = smallest_sufficient_q(largest, p_hat, M, level)
    level = min(level, -math.log10(2 * M))
    if q < 1:
        assert signal_level(largest, p_hat, M, q) >= level
    assert all(signal_level(largest, p_hat, M, smaller) < level for smaller in Q_GRID if smaller < q)


# --- the controller


def groups(p_hat, ess=8.0, count=8):
    return GroupStats((p_hat,) * count, (p_hat,) * count, (ess,) * count)


def after(controller, *seen):
    decisions = []
    for step, one in enumerate(seen, start=1):
        controller, decision = controller.observe(step, one)
        decisions += [decision] if decision else []
    return controller, decisions


def test_it_begins_at_the_quietest_q_that_is_loud():
    """All alike at w = 1e-14, M = 16: the effective reward is 10^(-14 + q(14 - log10 16)), 0.01 from q = 0.937 on."""
    controller, decision = start_controller(groups(-14.0), M, 1.0, True)
    assert controller.q == decision.q == 0.95
    assert "1.0e-14" in decision.reason
    assert start_controller(groups(-14.0), M, 0.8, True)[0].q == 0.8
    assert start_controller(groups(-1.0), M, 1.0, True)[0].q == 0.0


def test_q_falls_as_likelihood_rises_and_stays_while_heard():
    """At the q that -3 leaves, 0.55, likelihoods of 1e-6 still give 10^-3.4."""
    start, _ = start_controller(groups(-14.0), M, 1.0, False)
    controller, decisions = after(start, *[groups(-8.0)] * WINDOW, *[groups(-3.0)] * WINDOW, *[groups(-6.0)] * WINDOW)
    falling = [one.q for one in decisions]
    assert falling == sorted(falling, reverse=True)
    assert controller.q == falling[-1] == smallest_sufficient_q([-3.0], [-3.0], M, MIN_LOG10_SIGNAL)


@pytest.mark.parametrize(("most", "moves"), [(1.0, True), (0.6, True), (1.0, False)])
def test_q_rises_where_the_present_one_is_silent(most, moves):
    """At q = 0 likelihoods of 1e-9 are a thousandth of 1e-6; four steps of them decide nothing, and the fifth does."""
    start = QController(0.0, M, moves=moves, most=most)
    quiet, decisions = after(start, *[groups(-9.0)] * (WINDOW - 1), groups(-5.5), *[groups(-9.0)] * (WINDOW - 1))
    assert (quiet.q, decisions) == (0.0, [])
    raised, (decision,) = after(quiet, groups(-9.0))
    assert raised.q == decision.q == min(smallest_sufficient_q([-9.0], [-9.0], M, MIN_LOG10_SIGNAL), most) > 0
    assert after(raised, *[groups(-9.0)] * 2 * WINDOW) == (raised, [])


def test_a_q_that_rises_goes_with_garl():
    paft, _ = after(QController(0.0, M), *[groups(-1.0)] * WINDOW)
    raised, _ = after(paft, *[groups(-9.0)] * WINDOW)
    assert (paft.estimator, raised.estimator, raised.q > 0) == ("paft", "garl", True)
    assert after(raised, *[groups(-1.0)] * 2 * WINDOW)[0].estimator == "paft"


def test_no_q_helps_groups_without_any_likelihood():
    nothing = GroupStats((-math.inf,) * 8, (-math.inf,) * 8, ())
    assert after(QController(0.25, M), *[nothing] * WINDOW)[0].q == 0.25


def test_one_lucky_step_decides_nothing():
    start, _ = start_controller(groups(-14.0), M, 1.0, False)
    controller, decisions = after(start, *[groups(-14.0)] * WINDOW, groups(-1.0), *[groups(-14.0)] * WINDOW)
    assert controller.q == start.q
    assert decisions == []


def test_a_controller_that_trusts_its_last_step_would_be_seen(monkeypatch):
    """The mutant of the test above."""
    monkeypatch.setattr(controller_module, "WINDOW", 1)
    start, _ = start_controller(groups(-14.0), M, 1.0, False)
    assert after(start, groups(-14.0), groups(-1.0))[0].q < start.q


@pytest.mark.parametrize(
    ("q", "ess", "moves", "estimator"),
    [(0.0, 8.0, True, "paft"), (0.0, 8.0, False, "garl"), (0.0, 2.0, True, "garl"), (1.0, 8.0, True, "garl")],
)
def test_paft_takes_over_where_sampling_is_sound_and_q_is_spent(q, ess, moves, estimator):
    p_hat = -1.0 if q == 0.0 else -14.0
    controller, _ = after(QController(q, M, moves=moves), *[groups(p_hat, ess)] * WINDOW)
    assert controller.estimator == estimator


def test_paft_waits_while_a_q_of_zero_is_only_the_limit():
    """Soundness by itself says nothing of cold answers, such as those with one w after every rationale."""
    start, decision = start_controller(groups(-14.0), M, 0.0, True)
    assert decision.q == 0.0
    assert after(start, *[groups(-14.0)] * WINDOW)[0].estimator == "garl"
    assert after(start, *[groups(-14.0)] * WINDOW, *[groups(-1.0)] * WINDOW)[0].estimator == "paft"


def test_a_controller_comes_back_from_json_as_it_was():
    controller, _ = after(QController(0.9, M), *[groups(-9.0)] * 3, GroupStats((-math.inf,), (-math.inf,), ()))
    assert controller_module.restore_controller(json.loads(json.dumps(controller.state())), 1.0) == controller
    former = {name: value for name, value in controller.state().items() if name != "most"}
    assert controller_module.restore_controller(former, 0.9).most == 0.9


# --- the objective


def test_auto_is_found_in_garl_and_refused_elsewhere():
    assert find_auto(parse("garl(q=0.5)")) is None
    assert find_auto(parse("garl(q=auto(start=0.5))")).start == 0.5
    assert can_switch_to_paft(parse("garl(q=auto())"))
    assert not can_switch_to_paft(parse("garl(q=auto(), normalize=False)"))
    assert not can_switch_to_paft(parse("garl(q=auto()) | entropy_bonus(0.01)"))
    with pytest.raises(QreditError, match=r"auto\(\) stands for the q"):
        find_auto(parse("grpo() | keep_top_entropy(share=auto())"))
    with pytest.raises(QreditError, match=r"auto\(\) stands for the q"):
        find_auto(parse("garl(q=auto()) | keep_top_entropy(share=auto())"))
    with pytest.raises(QreditError, match="start|q must"):
        parse("garl(q=auto(start=2.0))")


def test_what_a_controller_asks_for_is_the_plain_objective():
    assert resolve_objective(parse("garl(q=auto())"), "garl", 0.25) == parse("garl(q=0.25)")
    assert resolve_objective(parse("garl(q=auto())"), "paft", 0.25) == parse("paft(q=0.25)")
    with_bonus = parse("garl(q=auto()) | entropy_bonus(0.01)")
    assert resolve_objective(with_bonus, "garl", 0.25) == parse("garl(q=0.25) | entropy_bonus(0.01)")


# --- in a run


def easy(folder, **changes):
    """A run that learns one answer to every question within a few steps."""
    changes = {"max_completion_length": 6} | changes
    data = Dataset.from_dict({"prompt": [f"What is {i}? " for i in range(8)], "answer": ["7"] * 8})
    given = {"max_steps": 16, "learning_rate": 2e-2, "lr_scheduler_type": "constant"} | changes
    return trainer(folder, "garl(q=auto())", data, **given)


def logged(made, name):
    return [entry[name] for entry in made.state.log_history if name in entry]


def test_a_run_with_auto_follows_its_controller(tmp_path, monkeypatch):
    """A level that the tiny model's likelihoods reach at some q below 1, later at q = 0, where PAFT takes over."""
    monkeypatch.setattr(controller_module, "MIN_EFFECTIVE_RATIONALES", 0.5)
    made = easy(tmp_path)
    made.train()
    decisions = made.auto_q.decisions
    assert decisions[0].step == 0
    for step, (q, paft) in enumerate(zip(logged(made, "q"), logged(made, "guide/paft"), strict=True), start=1):
        held = [one for one in decisions if one.step < step][-1]
        assert q == held.q
        assert paft == float(held.estimator == "paft")
    assert decisions[-1].estimator == "paft", decisions


@pytest.mark.e2e
def test_look_before_first_step_leaves_no_trace_in_its_numbers(tmp_path):
    plain = trainer(tmp_path / "plain", "garl(q=1.0)", max_steps=1)
    looked = trainer(tmp_path / "looked", "garl(q=auto())", max_steps=1)
    looked.auto_q.begin = lambda facts, m: type(looked.auto_q).begin(
        looked.auto_q, {**facts, "p_hat": facts["p_hat"] - 99, "largest": facts["largest"] - 99}, m
    )
    plain.train()
    looked.train()
    assert logged(looked, "q") == [1.0]
    for name in ("loss", "reward", "p_hat/log10_q50", "completions/mean_length", "num_tokens"):
        assert logged(looked, name) == logged(plain, name), name


@pytest.mark.e2e
def test_a_resumed_run_decides_as_if_never_stopped(tmp_path):
    """From the step of a decision, whose statistics it has used up, and from the step after it."""
    whole = easy(tmp_path, save_strategy="steps", save_steps=1)
    whole.train()
    assert len(whole.auto_q.decisions) > 2
    middle = whole.auto_q.decisions[1].step
    for step in (middle, middle + 1):
        again = easy(tmp_path, save_strategy="steps", save_steps=1, network=model(seed=5))
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert again.auto_q.decisions == whole.auto_q.decisions
        assert weights(again) == weights(whole)


@pytest.mark.e2e
def test_a_cut_up_step_decides_like_a_whole_one(tmp_path):
    whole = easy(tmp_path / "whole", per_device_train_batch_size=16)
    cut = easy(tmp_path / "cut", gradient_accumulation_steps=2)
    for made in (whole, cut):
        made.train()
    assert len(whole.auto_q.decisions) > 2
    assert [one.q for one in whole.auto_q.decisions] == [one.q for one in cut.auto_q.decisions]


def weights(made):
    return [p.detach().flatten().tolist() for p in made.model.parameters()]


# --- collapse


def watched(means, spread=0.05, count=16):
    """The steps at which a collapse is found in steps whose groups lie evenly around these means."""
    watch, found = CollapseDetector(), []
    for step, mean in enumerate(means, start=1):
        values = [mean + spread * (2 * place / (count - 1) - 1) for place in range(count)]
        watch, fallen = watch.observe(step, values)
        found += [step] if fallen else []
    return found


def test_fall_to_under_half_is_a_collapse_once_window_shows_it():
    """Ten steps at 0.8, then 0: the mean of the last ten is 0.4 after five steps, 0.32 after six."""
    assert watched([0.8] * 10 + [0.0] * 6) == [16]
    assert watched([0.8] * 10 + [0.5] * 20) == []


def test_a_fall_within_the_noise_is_none():
    """Few successes: 2 of 80 groups, then none. The mean falls to 0, by two standard errors."""
    watch = CollapseDetector()
    steps = [(1.0,) + (0.0,) * 15] * 2 + [(0.0,) * 16] * 20
    for step, values in enumerate(steps, start=1):
        watch, fallen = watch.observe(step, values)
        assert fallen is None


def test_a_test_without_standard_errors_would_be_seen(monkeypatch):
    """The mutant of the test above."""
    monkeypatch.setattr(collapse_module, "FALL_STANDARD_ERRORS", 0.0)
    watch, found = CollapseDetector(), []
    for step, values in enumerate([(1.0,) + (0.0,) * 15] * 2 + [(0.0,) * 16] * 20, start=1):
        watch, fallen = watch.observe(step, values)
        found.append(fallen)
    assert any(found)


STEADY = {
    "coins": lambda g: (torch.rand(8, generator=g) < 0.2).double(),
    "rewards of 16": lambda g: (torch.rand(8, 16, generator=g) < torch.rand(8, 1, generator=g) ** 2).double().mean(1),
    "one group": lambda g: (torch.rand(1, generator=g) < 0.5).double(),
}


def false_alarms(draw, runs=10, steps=300):
    found = 0
    for seed in range(runs):
        generator, watch = torch.Generator().manual_seed(seed), CollapseDetector()
        for step in range(steps):
            watch, fallen = watch.observe(step, draw(generator).tolist())
            if fallen:
                found += 1
                break
    return found


@pytest.mark.parametrize("kind", STEADY)
def test_steady_runs_seldom_collapse(kind):
    assert false_alarms(STEADY[kind]) <= 1


@pytest.mark.parametrize("kind", ["coins", "one group"])
def test_errors_of_each_stretch_by_itself_would_be_seen(kind, monkeypatch):
    """The mutant of the test above: a window of failures alone has no variance, and the best one is a lucky one."""

    def apart(self, other):
        return math.sqrt(self.variance / self.count + other.variance / other.count)

    monkeypatch.setattr(collapse_module.WindowStats, "error", apart)
    monkeypatch.setattr(collapse_module, "MIN_GROUPS", 5)
    assert false_alarms(STEADY[kind]) > 1


def test_a_real_fall_is_found_with_rewards_that_vary():
    """Means of 16 rewards, prompts of every difficulty, then nothing."""
    for seed in range(5):
        generator, watch, found = torch.Generator().manual_seed(seed), CollapseDetector(), []
        for step in range(1, 60):
            groups = STEADY["rewards of 16"](generator) * (step <= 40)
            watch, fallen = watch.observe(step, groups.tolist())
            found += [step] if fallen else []
        assert 43 < found[0] <= 52


def test_few_groups_a_step_are_taken_together_over_more_steps():
    watch = CollapseDetector()
    for step in range(1, 60):
        watch, _ = watch.observe(step, [0.5 + 0.01 * (step % 2)])
    assert len(watch.recent) == collapse_module.MIN_GROUPS


def test_validation_must_fall_a_quarter_and_out_of_its_interval():
    best = ValidationResult(10, 0.8, 0.7, 0.9)
    watch, fallen = CollapseDetector().check(best)
    assert fallen is None
    assert watch.check(ValidationResult(20, 0.65, 0.6, 0.68))[1] is None  # out of the interval, by less than a quarter
    assert watch.check(ValidationResult(20, 0.5, 0.2, 0.75))[1] is None  # by more, and within
    fallen = watch.check(ValidationResult(20, 0.5, 0.4, 0.6))[1]
    assert "from 80 % (step 10" in fallen.reason


def test_a_watch_comes_back_from_json_as_it_was():
    watch, _ = replace(CollapseDetector(), recent=((0.1, 0.2, 0.3, 0.4),) * collapse_module.MAX_STEPS).observe(
        11, [0.3, 0.4, 0.5, 0.6]
    )
    watch, _ = watch.check(ValidationResult(10, 0.8, 0.7, 0.9))
    assert watch.best is not None
    assert collapse_module.restore_detector(json.loads(json.dumps(watch.state()))) == watch


# --- the guard


class Scripted(TrainerCallback):
    """Puts a script in place of what the groups showed: success until a step, none after it."""

    def __init__(self, until, again=None):
        self.until, self.again, self.made, self.rates, self.seen = until, again, None, [], {}

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        good = step <= self.until or (self.again is not None and self.until + 6 < step <= self.again)
        self.made.step_success = [0.8 + 0.01 * place if good else 0.01 * place for place in range(8)]
        self.rates.append(self.made.optimizer.param_groups[0]["lr"])
        self.seen[step] = weights(self.made)


def guarded(folder, action, until=12, again=None, **changes):
    """The shortest completions there are: what the groups show is scripted."""
    script, guard = Scripted(until, again), CollapseGuard(action)
    made = trainer(
        folder, changes.pop("objective", "garl(q=0.75)"), callbacks=[script, guard],
        **({"max_steps": 24, "save_strategy": "steps", "save_steps": 2, "reward_funcs": length_reward,
            "lr_scheduler_type": "constant", "max_completion_length": 3, "answer_budget": 2, "num_generations": 2,
            "per_device_train_batch_size": 2} | changes),
    )  # fmt: skip
    script.made = made
    return made, script, guard


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that its guard ended."""
    made, script, guard = guarded(tmp_path_factory.mktemp("stopped"), "stop")
    made.train()
    return made, script, guard


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory):
    """A run in which PAFT took over."""
    made, script, guard = guarded(tmp_path_factory.mktemp("paft"), "paft", again=24)
    made.train()
    return made, script, guard


def test_stop_ends_the_run_with_the_best_checkpoints_weights(stopped):
    """Good until step 12; the window of ten shows it at step 18; the last checkpoint whose own
    groups, those of the next step, were good is 10."""
    made, script, guard = stopped
    assert made.state.global_step == 18
    assert weights(made) == script.seen[10]
    assert [one["step"] for one in guard.done] == [18]
    assert guard.done[0]["change"] == "stopped, with the weights of checkpoint-10"


@pytest.mark.e2e
def test_roll_back_goes_on_at_half_the_rate(tmp_path):
    made, script, guard = guarded(tmp_path, "roll_back", again=24)
    made.train()
    assert made.state.global_step == 24
    assert script.rates[:18] == [1e-3] * 18
    assert script.rates[18:] == pytest.approx([5e-4] * 6)
    assert len(guard.done) == 1
    moved = torch.tensor(
        [abs(a - b) for x, y in zip(script.seen[19], script.seen[10], strict=True) for a, b in zip(x, y, strict=True)]
    )
    assert 0 < float(moved.max()) <= 2 * 5e-4  # one step of Adam away from checkpoint 10, not from step 18


@pytest.mark.e2e
def test_roll_back_ends_after_its_chances(tmp_path):
    made, _, guard = guarded(tmp_path, "roll_back", until=12)
    made.args.max_steps = 60
    made.train()
    assert [one["change"].split(",")[0] for one in guard.done] == ["on at 0.5 of the learning rate"] * 3 + ["stopped"]
    assert made.state.global_step < 60


@pytest.mark.e2e
def test_paft_takes_over(taken_over):
    made, _, guard = taken_over
    assert guard.instead
    assert str(made.current_objective()) == "paft(q=0.75)"
    assert made.state.global_step == 24


@pytest.mark.e2e
def test_once_paft_has_taken_over_the_guide_is_silent(tmp_path):
    made, _, guard = guarded(tmp_path, "paft", again=24, objective="garl(q=auto())", learning_rate=2e-2)
    made.train()
    assert guard.instead
    assert all(one.step < 18 for one in made.auto_q.decisions)
    assert logged(made, "guide/paft")[18:] == [1.0] * 6
    assert logged(made, "q")[18:] == [0.75] * 6


def test_of_steps_logged_together_the_last_q_is_told(tmp_path):
    made = trainer(tmp_path, "garl(q=linear(1.0, 0.0))", max_steps=4, logging_steps=2)
    made.train()
    assert logged(made, "q") == [0.75, 0.25]


@pytest.mark.e2e
def test_a_guard_without_a_good_checkpoint_ends_the_run(tmp_path):
    made, _, guard = guarded(tmp_path, "roll_back", save_only_model=False)
    made.args.save_steps = made.state.save_steps = 100
    made.train()
    assert made.state.global_step == 18
    assert "no checkpoint was good" in guard.done[0]["change"]
    assert list_checkpoints(tmp_path) == []


@pytest.mark.e2e
def test_a_guard_remembers_over_a_resume(taken_over, tmp_path):
    made, _, guard = taken_over
    again, _, second = guarded(tmp_path, "paft", again=24, network=model(seed=5))
    again.train(resume_from_checkpoint=f"{made.args.output_dir}/checkpoint-20")
    assert second.done == guard.done
    assert second.instead
    assert weights(again) == weights(made)


@pytest.mark.parametrize(
    ("action", "changes", "words"),
    [
        ("paft", {"objective": "grpo()"}, r"guard=paft takes over from GARL.*this is grpo"),
        ("paft", {"objective": "paft(q=0.5)"}, r"guard=paft takes over from GARL.*this is paft"),
        ("stop", {"save_only_model": True}, "save_only_model leaves out"),
        ("roll_back", {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1,
                       "eval_dataset": questions(4), "per_device_eval_batch_size": 8}, "reduce_lr_on_plateau has none"),
    ],
)  # fmt: skip
def test_a_guard_that_cannot_do_its_work_says_so_at_once(tmp_path, action, changes, words):
    with pytest.raises(QreditError, match=words):
        guarded(tmp_path, action, **changes)


@pytest.mark.e2e
def test_a_good_checkpoint_outlives_the_rotation(tmp_path):
    """Saved every step, two kept: at step 18, when the collapse shows, the good one is long past."""
    made, script, guard = guarded(tmp_path, "stop", save_total_limit=2, save_steps=1)
    made.train()
    assert guard.good == 11
    assert weights(made) == script.seen[11]


def test_every_step_on_a_plateau_is_good_and_none_of_a_fall():
    generator, watch, good = torch.Generator().manual_seed(0), CollapseDetector(), []
    for step in range(200):
        success = 0.5 if step < 150 else 0.2
        watch, _ = watch.observe(step, (success + 0.1 * torch.randn(8, generator=generator)).tolist())
        good.append(watch.good)
    assert 0.2 < sum(good[20:150]) / 130 < 0.9
    assert not any(good[152:])


def test_a_run_that_the_guard_ended_is_not_taken_up_again(stopped):
    made, _, guard = stopped
    folder = Path(made.args.output_dir)
    assert guard.done[-1]["step"] == 18
    assert has_guard_ended_run(folder / "checkpoint-18")
    assert not has_guard_ended_run(folder / "checkpoint-12")


def test_without_likelihood_the_guard_watches_rewards(tmp_path):
    seen = []

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(made.step_success)

    made = trainer(tmp_path, "grpo()", callbacks=[Keep()], reward_funcs=length_reward, data=questions(8))
    made.train()
    assert all(len(one) == 2 for one in seen)
    assert [sum(one) / 2 for one in seen] == pytest.approx(logged(made, "reward"))
