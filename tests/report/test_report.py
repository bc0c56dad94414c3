"""The report: what a run records for it, what is read of a folder, what is said and drawn, and that it is safe."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from jinja2 import UndefinedError

from qredit import Objective, QreditError, on_span, trace
from qredit.callbacks.credit_recorder import CreditRecorder, TokenTexts, choose_interval, make_record
from qredit.cli import main
from qredit.credit.group import center_by_group, scale_by_batch_std
from qredit.credit.reward import reward
from qredit.credit.running import subtract_running_mean
from qredit.engine.step import ScoredMicrobatch
from qredit.objectives import garl, grpo
from qredit.objectives.parsing import parse
from qredit.report import page as paging
from qredit.report.chart import ChartLine, ChartPanel, choose_ticks, draw_bars, draw_panel
from qredit.report.collect import collect_runs
from qredit.report.curves import compute_first_and_last, compute_moving_means, make_panels
from qredit.report.entropy_law import fit_entropy_law
from qredit.report.page import dump_script_json, render_page
from qredit.report.records import make_batch, prepare_records
from qredit.report.render import render
from qredit.report.sentences import compare_runs, describe_run
from qredit.report.write import write_report
from qredit.stats.interval import Interval
from qredit.utils.formatting import format_probability
from tests.support.folders import SHORT, data_file, flags, model_folder
from tests.support.marks import e2e
from tests.support.runs import first_step_gradients, length_reward, trainer
from tests.support.tiny import tokenizer

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & <!-- "
    "\x1b[2J\x07\x00 \u202egnorw\u202c \u2066x\u2069 \u2028\u2029 \ud800 \ufffd ]]>"
)
NO_CREDIT = "None of these runs recorded credit"


def entry(step, **metrics):
    return {"step": step, "reward": 0.0, "entropy": 1.0, "completions/mean_length": 20.0} | metrics


def made_run(folder, metrics=None, config=None, record=None, credit=(), name="metrics.jsonl"):
    """A run folder with these contents."""
    folder.mkdir(parents=True)
    entries = [entry(step) for step in range(1, 11)] if metrics is None else metrics
    (folder / name).write_text("".join(json.dumps(one) + "\n" for one in entries))
    (folder / "config.yaml").write_text(
        json.dumps({"task": "jsonl", "steps": len(entries), "m": 4, "lr": 0.1} | (config or {}))
    )
    (folder / "record.json").write_text(json.dumps({"objective": "grpo()", "seed": 0} | (record or {})))
    (folder / "credit.jsonl").write_text("".join(json.dumps(one) + "\n" for one in credit))
    return folder


def record(text="abc", **changes):
    """A record of two rollouts of one group, three tokens of rationale and one of the gold answer each."""
    spans = {"rationale": [[0, 3]], "close": [], "response": [], "answer": [[3, 4]], "sampled": [[0, 3]]}
    stages = ["rationale/amplified_likelihood(q=1.0)", "credit"]
    rollouts = [
        {
            "tail": "answer",
            "rollout": number,
            "reward": float(number),
            "log_w": -1.0 - number,
            "credit_sum": 0.25,
            "cut": None,
            "ids": [5, 5, 6, 7],
            "spans": spans,
            "values": [[[0.5, 3], [0.0, 1]], [[0.25, 3], [-0.5, 1]]],
        }
        for number in range(2)
    ]
    return {
        "step": 1,
        "objective": "garl(q=1.0)",
        "group": 3,
        "seed": 11,
        "prompt": text,
        "gold": text,
        "responses": [text, text],
        "texts": {"5": text, "6": "\n", "7": "end"},
        "stages": stages,
        "likely": True,
        "exact": True,
        "rollouts": rollouts,
    } | changes


def record_of_turns():
    """A record whose first rollout has two turns: two tokens, one observed, and two of the second turn."""
    told = record()
    spans = {
        "rationale": [[0, 1], [3, 4]],
        "close": [],
        "response": [[1, 2]],
        "answer": [[4, 5]],
        "sampled": [[0, 2], [3, 4]],
        "observation": [[2, 3]],
    }
    values = [[[0.5, 2], [0.0, 1], [0.5, 1], [0.0, 1]], [[0.25, 2], [0.0, 1], [-0.5, 2]]]
    told["rollouts"][0] |= {"ids": [5, 5, 6, 7, 7], "spans": spans, "values": values, "turns": [[0, 3], [1, 2]]}
    return told


class Page(HTMLParser):
    """What a browser would find: elements with attributes, the text of the scripts, the text outside them."""

    VOID = ("meta", "br", "img", "input", "link", "path", "line", "rect", "circle")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.data, self.texts = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes)))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, text):
        inside = self.open[-1] if self.open else ("", {})
        if inside == ("script", {"type": "application/json", "id": "data"}):
            self.data += text
        elif inside[0] not in ("script", "style"):
            self.texts.append(text)

    @property
    def said(self):
        return " ".join(" ".join(self.texts).split())


def report(*folders, **more):
    text = render_page(collect_runs(folders), **more)
    found = Page(text)
    assert not found.open
    return text, found, json.loads(found.data)


# --- the recorder


def recorded(folder, objective="garl(q=0.75)", steps=3, **changes):
    """The records of a short run, and the first micro-batch that was learned from at each of its steps."""
    seen, recorder = {}, CreditRecorder(folder / "credit.jsonl", 1, tokenizer())
    see = recorder.observe
    recorder.observe = lambda step, learned: (seen.setdefault(step, learned), see(step, learned))
    trainer(folder, objective, callbacks=[recorder], max_steps=steps, reward_funcs=length_reward, **changes).train()
    return [json.loads(line) for line in (folder / "credit.jsonl").read_text().splitlines()], seen


def unrolled(pairs):
    return [value for value, count in pairs for _ in range(count)]


WHOLE_STEP = Objective(on_span("sampled", reward() | center_by_group() | scale_by_batch_std()))


@pytest.mark.parametrize(
    "objective", ["garl(q=0.75)", *map(e2e, ("paft(q=0.5)", "grpo()", "steer()", "maxrl()")), WHOLE_STEP], ids=str
)
def test_a_record_holds_the_trace_of_the_first_group(tmp_path, objective):
    records, seen = recorded(tmp_path, objective)
    assert [one["step"] for one in records] == [1, 2, 3]
    for one in records:
        learned = seen[one["step"]]
        first = learned.batch.group == learned.batch.group[0]
        with torch.no_grad():
            whole = trace(learned.objective, learned.batch)
        assert one["stages"] == list(whole)
        assert one["exact"]
        assert len(one["rollouts"]) == 4
        for row, told in zip(first.nonzero()[:, 0], one["rollouts"], strict=True):
            there = learned.batch.mask[row]
            assert told["ids"] == learned.batch.ids[row][there].tolist()
            for values, expected in zip(told["values"], whole.values(), strict=True):
                assert unrolled(values) == pytest.approx(expected[row][there].tolist(), rel=1e-3)
            assert told["credit_sum"] == pytest.approx(float(whole["credit"][row].sum()), rel=1e-3, abs=1e-6)


def test_texts_are_the_decoded_rollout_with_gold_as_a_span(tmp_path):
    records, seen = recorded(tmp_path, steps=1)
    one, learned = records[0], seen[1]
    assert one["gold"] == tokenizer().decode(list(learned.first[0].golds[0]))
    assert len(one["responses"]) == 4
    assert one["prompt"].startswith("What is ")
    for told in one["rollouts"]:
        (start, end) = told["spans"]["answer"][0]
        assert "".join(one["texts"][str(number)] for number in told["ids"][start:end]) == one["gold"]


def test_recording_changes_no_gradient(tmp_path):
    with_it = trainer(tmp_path, callbacks=[CreditRecorder(tmp_path / "credit.jsonl", 1, tokenizer())])
    found, without = first_step_gradients(with_it), first_step_gradients(trainer(tmp_path))
    assert (tmp_path / "credit.jsonl").exists()
    assert all(torch.equal(found[name], without[name]) for name in without)


def test_a_stateful_stage_is_shown_with_its_state(tmp_path):
    objective = Objective(on_span("sampled", reward() | subtract_running_mean()))
    records, seen = recorded(tmp_path, objective)
    learned = seen[3]
    assert learned.state != objective.init_state()
    own = trace(learned.objective, learned.batch, learned.state)["credit"]
    fresh = trace(learned.objective, learned.batch)["credit"]
    assert not torch.allclose(own, fresh)
    assert records[2]["exact"]
    stage, last = records[2]["rollouts"][0]["values"][-2:]
    assert stage[0][0] == last[0][0] == pytest.approx(float(own[0, 0]), rel=1e-3)


def test_stages_over_a_step_are_marked_where_part_was_seen(tmp_path):
    records, seen = recorded(tmp_path, WHOLE_STEP, gradient_accumulation_steps=2)
    assert not records[0]["exact"]
    used = seen[1].credited.value[0]
    assert records[0]["rollouts"][0]["values"][-1][0][0] == pytest.approx(float(used[0]), rel=1e-3)


def test_two_tailed_rows_are_recorded_as_such(tmp_path):
    both = Objective(garl(0.5).source + 0.5 * grpo().source)
    records, _ = recorded(tmp_path, both, steps=1)
    assert [one["tail"] for one in records[0]["rollouts"]] == ["answer", "response"] * 4
    assert [one["reward"] is None for one in records[0]["rollouts"]] == [True, False] * 4


def test_long_runs_are_thinned_to_a_bounded_number_of_records():
    for steps, every in ((100, 1), (201, 1), (10_000, 1), (10_000, 10), (999, 7)):
        apart = choose_interval(steps, every)
        assert apart % every == 0
        assert steps // apart <= 200
        assert apart == every or steps // (apart - every) > 200 * 0.99


def test_long_rows_keep_both_ends_and_the_sum_of_all(tmp_path, monkeypatch):
    _, seen = recorded(tmp_path, steps=1)
    learned = seen[1]
    monkeypatch.setattr("qredit.callbacks.credit_recorder.MAX_TOKENS", 24)
    monkeypatch.setattr("qredit.callbacks.credit_recorder._LEAST_PER_ROW", 4)
    cut = make_record(learned, TokenTexts(tokenizer()))["rollouts"][0]
    whole = learned.batch.ids[0][learned.batch.mask[0]].tolist()
    assert cut["ids"] == whole[:3] + whole[-3:]
    assert cut["cut"] == [3, len(whole) - 6]
    credit = learned.objective.credit(learned.batch)[0]
    assert cut["credit_sum"] == pytest.approx(float(credit.sum()), rel=1e-3)
    assert [sum(n for _, n in stage) for stage in cut["values"]] == [6] * len(cut["values"])


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    recorder = CreditRecorder(tmp_path / "credit.jsonl", 1, tokenizer())
    recorder.path.write_text('{"step": 1}\n{"step": 5}\n{"step"')

    class State:
        is_world_process_zero, global_step, max_steps = True, 3, 9

    recorder.on_train_begin(None, State, None)
    assert recorder.path.read_text() == '{"step": 1}\n'
    recorder.observe(3, None)  # done before the checkpoint: must not be looked at


def test_other_processes_write_nothing(tmp_path):
    recorder = CreditRecorder(tmp_path / "credit.jsonl", 1, tokenizer())

    class State:
        is_world_process_zero, global_step, max_steps = False, 0, 9

    recorder.on_train_begin(None, State, None)
    recorder.observe(1, None)
    assert not recorder.path.exists()


# --- other objectives beside


def test_a_record_gives_batch_back_that_other_objectives_need(tmp_path):
    records, seen = recorded(tmp_path / "run", steps=1)
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(entry(1)) + "\n")
    (run,) = collect_runs([tmp_path / "run"])
    (found,) = prepare_records(run)
    first = seen[1].batch.select(seen[1].batch.group == seen[1].batch.group[0])
    names = [other["name"] for other in found["beside"]]
    assert names == ["grpo()", "maxrl()", "garl(q=0.0)", "garl(q=0.75)", "garl(q=1.0)", "paft(q=0.75)"]
    for other in found["beside"]:
        expected = parse(other["name"]).credit(first)
        for row, values in enumerate(other["values"]):
            assert unrolled(values) == pytest.approx(expected[row][first.mask[row]].tolist(), rel=1e-3, abs=1e-12)
    assert math.isclose(float(make_batch(records[0], found["rollouts"]).answer_logp[0]), float(first.answer_logp[0]))


def test_an_objective_that_cannot_be_recomputed_says_why(tmp_path):
    records, _ = recorded(tmp_path / "run", "grpo()", steps=1)
    (run,) = collect_runs([made_run(tmp_path / "made", credit=records)])
    wanted = ("garl(q=1.0)", "steer()", f"Objective({WHOLE_STEP.source})", "grpo()")
    reasons = [other.get("why", "") for other in prepare_records(run, wanted)[0]["beside"]]
    assert "needs answer_logp, which this run did not record" in reasons[0]
    assert "needs" in reasons[1]
    assert "whole optimiser step" in reasons[2]
    assert reasons[3] == ""


def test_a_likelihood_of_0_is_kept_apart_from_none(tmp_path):
    one = record()
    for rollout in one["rollouts"]:
        rollout["log_w"] = None
    (run,) = collect_runs([made_run(tmp_path / "made", credit=[one])])
    (found,) = prepare_records(run, ["garl(q=0.5)"])
    assert found["likely"]
    assert all(unrolled(values) == [0.0] * 4 for values in found["beside"][0]["values"])


@pytest.mark.parametrize(
    "broken",
    [
        {"rollouts": []},
        {"stages": ["credit"]},
        {"texts": {}},
        {"texts": {"5": "a", "6": "b", "x": "c"}},
        {"rollouts": [{"ids": [5]}]},
        {"rollouts": [record()["rollouts"][0] | {"turns": [[0, 3]]}]},
        {"rollouts": 7},
        {"seed": "x"},
        {"step": 1, "prompt": None, "rollouts": None},
    ],
    ids=str,
)
def test_a_record_that_does_not_fit_is_left_out(tmp_path, broken):
    (run,) = collect_runs([made_run(tmp_path / "made", credit=[record(**broken), record()])])
    assert len(prepare_records(run)) == 1


def test_turns_are_recorded_and_shown(tmp_path):
    _, seen = recorded(tmp_path, steps=1)
    batch, rows = seen[1].batch, seen[1].rows
    turn = (torch.arange(batch.mask.shape[1]) >= 3).long().expand_as(batch.ids)
    found = make_record(ScoredMicrobatch(seen[1].objective, rows, replace(batch, turn=turn)), TokenTexts(tokenizer()))
    for one in found["rollouts"]:
        assert unrolled(one["turns"]) == [0] * 3 + [1] * (len(one["ids"]) - 3)
    single = replace(batch, turn=torch.zeros_like(batch.ids))
    plain = make_record(ScoredMicrobatch(seen[1].objective, rows, single), TokenTexts(tokenizer()))
    assert all("turns" not in one for one in plain["rollouts"]), "one turn is not worth a word"
    (run,) = collect_runs([made_run(tmp_path / "made", credit=[record_of_turns()])])
    page = Page(render_page([run]))
    (shown,) = json.loads(page.data)["runs"][0]["records"]
    assert [one["turns"] for one in shown["rollouts"]] == [[[0, 3], [1, 2]], [[0, 4]]]
    assert shown["rollouts"][0]["spans"]["observation"] == [[2, 3]]
    assert "Observations, the text of tools and environments, are grey" in page.said
    again = make_batch(record_of_turns(), shown["rollouts"])
    assert again.turn.tolist() == [[0, 0, 0, 1, 1], [0] * 5]


# --- reading folders


def test_torn_and_foreign_lines_are_skipped_and_counted(tmp_path):
    folder = made_run(tmp_path / "made")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"loss": 1}\n{"step": 11, "rewa')
    (run,) = collect_runs([folder])
    assert (len(run.metrics), run.unreadable_lines) == (10, 3)
    assert "3 unreadable lines of its files left out." in describe_run(run)


def test_values_that_are_no_numbers_are_gaps(tmp_path):
    metrics = [entry(1, q=None), entry(2, q="x"), entry(3, q=True), entry(4, q=float("nan")), entry(5, q=0.5)]
    (run,) = collect_runs([made_run(tmp_path / "made", metrics)])
    assert run.series("q") == ([1, 2, 3, 4, 5], [None, None, None, None, 0.5])
    assert run.series("no such") == ([], [])


@pytest.mark.parametrize("missing", ["record.json", "credit.jsonl", "config.yaml"])
def test_a_missing_file_is_no_trouble(tmp_path, missing):
    folder = made_run(tmp_path / "made", credit=[record()])
    (folder / missing).unlink()
    assert "10 steps" in report(folder)[1].said


@pytest.mark.parametrize("broken", ["record.json", "config.yaml"])
def test_a_file_that_cannot_be_read_is_as_good_as_missing(tmp_path, broken):
    folder = made_run(tmp_path / "made")
    (folder / broken).write_bytes(b"{\xff: [\x00")
    assert "10 steps" in report(folder)[1].said


def test_a_run_that_only_just_began_makes_a_page_too(tmp_path):
    found = report(made_run(tmp_path / "made", []))[1]
    assert "No step was logged" in found.said


def test_an_old_run_without_credit_says_why_the_viewer_is_empty(tmp_path):
    assert NO_CREDIT in report(made_run(tmp_path / "made"))[1].said
    assert NO_CREDIT not in report(made_run(tmp_path / "other", credit=[record()]))[1].said


def test_an_experiments_folder_stands_for_its_run(tmp_path):
    made_run(tmp_path / "grpo-seed0" / "run")
    result = {"intervals": {"p@1": {"value": 0.5, "low": 0.4, "high": 0.6}, "p@16": {"value": None}}}
    (tmp_path / "grpo-seed0" / "result.json").write_text(json.dumps(result))
    (run,) = collect_runs([tmp_path / "grpo-seed0"])
    assert (run.name, list(run.held)) == ("grpo-seed0", ["p@1"])
    assert "On held-out questions the final model has p@1 = 50.0 % [40.0 %, 60.0 %]." in describe_run(run)


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [made_run(tmp_path / parent / "seed0") for parent in ("a", "b")]
    assert [run.name for run in collect_runs([*folders, folders[0]])] == ["a/seed0", "b/seed0"]


# --- words and curves


def test_words_say_the_numbers(tmp_path):
    metrics = [
        entry(
            step,
            reward=0.0 if step <= 5 else 0.75,
            entropy=2.0 - step / 10,
            **{
                "p_hat/log10_q50": -14.0 + step,
                "p_hat/log10_q10": -15.0,
                "p_hat/log10_q90": -2.0,
                "time/sample": 3.0,
                "time/score": 0.0,
                "time/update": 1.0,
                "groups/below_adam_epsilon": 1.0 if step <= 2 else 0.0,
                "completions/clipped_ratio": 0.9,
            },
        )
        for step in range(1, 11)
    ]
    config = {"task": "pocket-hotpot", "style": "cold", "steps": 20, "prompts_per_step": 8, "m": 16}
    (run,) = collect_runs([made_run(tmp_path / "made", metrics, config, {"objective": "garl(q=0.75)"})])
    told = describe_run(run)
    assert told[0] == (
        "garl(q=0.75) on pocket-hotpot (cold prompts): 10 steps of 8 prompts × 16 rollouts, stopped before its 20 "
        "steps were done."
    )
    assert told[1] == (
        "Mean reward of the training rollouts rose from 0.0 % (first 5 logged steps) to 75.0 % (last 5)."
    )
    assert "The gold answer's median likelihood p̂ went from 1.0e-11 (first 5 logged steps) to 1.0e-6 (last 5)." in told
    assert (
        "From first to last: entropy 1.7 nats a token → 1.2 nats a token; mean length 20.0 tokens → 20.0 tokens."
        in told
    )
    assert "At the end 90 % of the completions were cut off by the token limit." in told
    assert any(
        sentence.startswith("In 2 of 10 logged steps most groups had coefficients below 1e-8") for sentence in told
    )
    assert "A micro-batch took 4 s: sampling 75 %, scoring 0 %, update 25 %." in told


def likelihood_said(tmp_path, values):
    metrics = [entry(step, **{"p_hat/log10_q50": value}) for step, value in enumerate(values, start=1)]
    told = describe_run(collect_runs([made_run(tmp_path / "made", metrics)])[0])
    (sentence,) = [sentence for sentence in told if "p̂" in sentence]
    return sentence


@pytest.mark.parametrize("values", [[-10.2, -9.9, -9.8, -9.4], [-10.2] * 4 + [-1.0] * 5, [-3.0]])
def test_a_few_steps_of_different_questions_are_no_trend(tmp_path, values):
    said = likelihood_said(tmp_path, values)
    assert "different questions, too few steps" in said
    assert "went" not in said


def test_likelihoods_as_far_apart_as_questions_are_no_trend(tmp_path):
    said = likelihood_said(tmp_path, [-10.0, -4.0, -9.0, -5.0, -7.0, -6.5, -9.5, -4.0, -8.0, -5.0])
    assert "was not seen to move" in said
    assert "went" not in said


def test_a_stall_is_said(tmp_path):
    metrics = [entry(step, frac_reward_zero_std=1.0) for step in range(1, 4)]
    told = describe_run(collect_runs([made_run(tmp_path / "made", metrics)])[0])
    assert told[1] == "Mean reward of the training rollouts stayed at 0.0 % (first and last 3 logged steps)."
    assert told[2] == "No logged step had a single rollout with a reward."
    assert told[3].startswith("In every logged group all rewards were equal")


def test_of_a_few_steps_no_first_and_last_are_told_apart(tmp_path):
    metrics = [entry(step, reward=0.25 * step, entropy=2.0 - step / 10) for step in range(1, 4)]
    told = describe_run(collect_runs([made_run(tmp_path / "made", metrics)])[0])
    assert told[1].startswith("Mean reward of the training rollouts was 50.0 % [")
    assert told[1].endswith("] over 3 logged steps, too few to compare.")
    assert any("entropy 1.9 nats a token → 1.7 nats a token" in sentence for sentence in told)


def test_rewards_that_are_no_shares_are_not_shown_in_per_cent(tmp_path):
    metrics = [entry(step, reward=-2.0 + step) for step in range(1, 9)]
    told = describe_run(collect_runs([made_run(tmp_path / "made", metrics)])[0])
    assert "rose from 1 (first 5 logged steps) to 4 [" in told[1]


def test_runs_with_negative_rewards_are_ranked(tmp_path):
    ends = {"zero": 0.0, "below": -1.0}
    folders = [made_run(tmp_path / name, [entry(n, reward=end) for n in range(1, 6)]) for name, end in ends.items()]
    assert compare_runs(collect_runs(folders))[0].startswith("zero ended highest")


def test_runs_without_a_success_are_not_ranked(tmp_path):
    folders = [made_run(tmp_path / name, [entry(n, reward=0.0) for n in range(1, 6)]) for name in ("one", "other")]
    assert compare_runs(collect_runs(folders)) == ["No run ended with a success."]


@pytest.mark.parametrize(("second", "verdict"), [(0.3, "do not overlap"), (0.88, "may be chance")])
def test_runs_are_ranked_with_their_intervals(tmp_path, second, verdict):
    wobble = (0.0, 0.05, -0.05, 0.02, -0.02)
    made = {"high": 0.9, "low": second}
    folders = [
        made_run(tmp_path / name, [entry(n + 1, reward=mean + d) for n, d in enumerate(wobble)])
        for name, mean in made.items()
    ]
    (told,) = compare_runs(collect_runs(folders))
    assert told.startswith("high ended highest, at 90.0 % [86.7 %, 93.3 %]; next is low, at ")
    assert verdict in told
    assert compare_runs(collect_runs(folders[:1])) == []


def test_a_moving_mean_has_the_interval_of_what_it_covers():
    found = compute_moving_means([0.0, 1.0, None, 1.0], over=3)
    assert [round(one.value, 4) for one in found] == [0.0, 0.5, 0.5, 1.0]
    assert (found[0].low, found[0].high) == (-math.inf, math.inf)
    assert (found[1].low, found[1].high) == (0.0, 1.0)  # 0.5 ∓ 0.98, and a share stays one
    wide = compute_moving_means([1.0, 3.0], over=2)[1]
    assert (wide.low, wide.high) == pytest.approx((2 - 1.96, 2 + 1.96))
    assert compute_moving_means([None], over=3) == [None]


def test_an_interval_is_written_once_for_every_command():
    def percent(value):
        return f"{value:.0%}"

    assert Interval(0.5, 0.25, 1.0).format(percent) == "50% [25%, 100%]"
    assert Interval(0.5, 0.5, 0.5).format(percent) == Interval(0.5, -math.inf, math.inf).format(percent) == "50%"
    assert Interval(-2.0, -math.inf, -1.0).format(format_probability) == "0.01 [0, 0.1]"
    assert Interval(2.0, 1.5, 3.0).is_above(Interval(1.0, 0.0, 1.25))
    assert not Interval(2.0, 1.0, 3.0).is_above(Interval(1.0, 0.0, 1.25))
    assert not Interval(2.0, -math.inf, math.inf).is_above(Interval(1.0, 0.0, 1.25))


def test_first_and_last_are_means_over_the_window(tmp_path):
    (run,) = collect_runs([made_run(tmp_path / "made", [entry(step, reward=step / 10) for step in range(1, 11)])])
    first, last = compute_first_and_last(run, "reward")
    assert (first.value, last.value) == pytest.approx((0.3, 0.8))


def test_there_is_a_panel_for_every_curve_that_was_logged(tmp_path):
    told = dict.fromkeys(
        ("effective_reward/max", "centred_weight/max", "weights/ess", "q", "p_hat/log10_q10", "p_hat/log10_q50"), 0.5
    )
    plain, full = made_run(tmp_path / "plain"), made_run(tmp_path / "full", [entry(1, **told), entry(2, **told)])
    titles = [panel.title for panel in make_panels(collect_runs([plain, full]))]
    assert len(titles) == len(set(titles)) == 8
    found = {panel.title: [line.label for line in panel.lines] for panel in make_panels(collect_runs([plain, full]))}
    assert found["Commitment"] == ["full"]
    assert found["Entropy"] == ["plain", "full"]
    assert len(make_panels(collect_runs([plain]))) == 3


def test_ticks_are_round_and_between_the_bounds():
    assert choose_ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert choose_ticks(-14.3, -0.2, whole=True) == [-10, -5]
    assert choose_ticks(0.5, 3.4, whole=True) == [1, 2, 3]
    assert choose_ticks(2.0, 2.0)


@pytest.mark.parametrize("values", [[1.0], [None, 2.0, None], [0.0, 0.0], [-3.0, 4.0, None, 5.0], [0.1] * 5000])
def test_any_curve_is_drawn_inside_its_frame(values):
    steps = list(range(1, len(values) + 1))
    text = draw_panel(ChartPanel("a < b", "unit & unit", [ChartLine("<x>", 9, steps, values, values, values)]))
    assert not re.search(r"\b(nan|inf)\b", text)
    assert "a &lt; b" in text
    assert len(text) < 30_000
    places = [
        tuple(map(float, pair))
        for pair in re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall('d="(.*?)"', text)))
    ]
    assert all(0 <= x <= 520 and 0 <= y <= 250 for x, y in places)


def test_powers_of_ten_are_written_as_such():
    text = draw_panel(ChartPanel("p", "p̂", [ChartLine("x", 0, [1, 2], [-14.0, -1.0])], decades=True))
    assert ">10⁻¹⁰<" in text


# --- the page


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path):
    text, found, _ = report(made_run(tmp_path / "made", credit=[record()]))
    for tag, attributes in found.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"(src|href)\s*=\s*[\"']?\w+:|url\(|@import|fetch\(|XMLHttp|innerHTML|eval\(", text)
    assert "default-src 'none'" in text
    kinds = [attributes.get("type") for tag, attributes in found.elements if tag == "script"]
    assert kinds == ["application/json", None]


def test_the_policy_names_the_hashes_of_its_script_and_style(tmp_path):
    text, _, _ = report(made_run(tmp_path / "made"))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)[1]
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert paging._hash(inside) in policy


def test_the_page_can_be_read_by_keyboard_and_by_ear(tmp_path):
    _, found, _ = report(made_run(tmp_path / "made", credit=[record()]))
    ids = {attributes["id"] for _, attributes in found.elements if "id" in attributes}
    targets = [attributes["href"][1:] for tag, attributes in found.elements if tag == "a"]
    assert targets
    assert set(targets) <= ids
    charts = [attributes for tag, attributes in found.elements if tag == "svg" and attributes.get("class") == "chart"]
    assert charts
    assert all(attributes["role"] == "img" for attributes in charts)
    assert ("html", {"lang": "en"}) in found.elements


def hostile_run(folder):
    one = record(HOSTILE)
    one["stages"] = [HOSTILE, "credit"]
    metrics = [entry(step, **{HOSTILE: 1.0}) for step in (1, 2)]
    config = {HOSTILE: HOSTILE, "task": HOSTILE, "style": HOSTILE}
    return made_run(folder, metrics, config, {"objective": HOSTILE, "versions": {HOSTILE: [HOSTILE]}}, [one])


def test_hostile_text_stays_text(tmp_path):
    """Markup, scripts, closing tags, control characters, lone surrogates and marks of direction, everywhere."""
    folders = [hostile_run(tmp_path / "<b>a</b>"), hostile_run(tmp_path / "b")]
    text, found, data = report(*folders)
    plain = Page(render_page(collect_runs([made_run(tmp_path / "plain", credit=[record()])])))
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in plain.elements}
    assert [tag for tag, _ in found.elements].count("script") == 2
    assert not [c for c in text if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000]
    assert not set(text) & set("\u202e\u202c\u2066\u2069\u2028\u2029")
    assert "<" not in found.data
    assert ">" not in found.data
    shown_text = data["runs"][0]["records"][0]["texts"]["5"]
    assert "</script><script>document.title='owned'</script>" in shown_text
    assert r"\x1b[2J\x07\x00 \u202egnorw\u202c" in shown_text
    assert r"\ud800" in shown_text
    assert "\ufffd" in shown_text
    assert "</script><script>" in found.said


def test_every_text_of_a_run_is_escaped_wherever_page_shows_it(tmp_path):
    """Each field has a script of its own, with both quotes, so that a failure names the field that got through."""

    def script(field):
        return f"</title></desc><script title='{field}' id=\"{field}\">{field}</script>"

    def one(name, **more):
        seconds = {"time/sample": 1.0, "p_hat/log10_q50": -3.0, **more}
        metrics = [entry(step, **seconds) for step in (1, 2)]
        config = {script("option"): script(f"option of {name}"), "task": script("task"), "style": script("style")}
        own = record(script("text")) | {"objective": script("its objective"), "stages": [script("stage"), "credit"]}
        about = {"objective": script("objective"), "versions": {script("package"): [script("version")]}}
        folder = made_run(tmp_path / f"<i id='{name}'>", metrics, config, about, [own])
        (folder / "decisions.jsonl").write_text(
            json.dumps({"step": 1, "change": script("change"), "reason": script("reason")}) + "\n"
        )
        return folder

    _, found, _ = report(one("a"), one("b"))
    assert [attributes for tag, attributes in found.elements if tag in ("script", "i")] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    fields = ("option", "option of a", "task", "style", "objective", "package", "version", "change", "reason")
    assert [field for field in fields if script(field) not in "".join(found.texts)] == []
    assert "<i id='a'>" in found.texts
    svg = draw_panel(ChartPanel(script("title"), script("unit"), [ChartLine(script("label"), 0, [1], [1.0])]))
    svg += draw_bars({script("row"): {script("part"): 1.0}}, script("s"))
    assert "<script" not in svg
    assert Page(f"<html>{svg}</html>").said.count("</script>") >= 5


def test_template_that_asks_for_a_value_nobody_gave_is_an_error():
    with pytest.raises(UndefinedError, match="height"):
        render("bars.svg", width=1, rows=[])


def test_data_comes_back_from_the_page_as_it_went_in():
    value = {"a": [1, 2.5, None, True, "x</script>&amp;"], "<": {"é": "日本"}}
    assert json.loads(dump_script_json(value)) == value
    assert "<" not in dump_script_json(value)
    with pytest.raises(ValueError):
        dump_script_json({"a": math.nan})


def test_runs_stand_side_by_side_with_only_options_that_differ(tmp_path):
    folders = [made_run(tmp_path / name, config={"lr": lr}) for name, lr in (("a", 0.1), ("b", 0.2))]
    text, found, data = report(*folders)
    section = text[text.index('id="differences"') : text.index("<details>")]
    assert "<td>lr</td><td>0.1</td><td>0.2</td>" in section
    assert "<td>task</td>" not in section
    assert "<td>task</td>" in text
    assert [run["name"] for run in data["runs"]] == ["a", "b"]
    assert len([1 for tag, attributes in found.elements if attributes.get("class", "").startswith("line c")]) >= 6
    equal = report(made_run(tmp_path / "c"), made_run(tmp_path / "d"))[1]
    assert "All options of these runs are equal." in equal.said


def test_page_stays_within_its_limit_by_keeping_fewer_records(tmp_path, monkeypatch):
    folder = made_run(tmp_path / "made", credit=[record("word " * 200, step=step) for step in range(1, 20)])
    whole = len(report(folder)[0].encode())
    monkeypatch.setattr(paging, "_ROOM", 0)
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", whole - 1000)
    text, _, data = report(folder)
    steps = [one["step"] for one in data["runs"][0]["records"]]
    assert steps == list(range(1, 20, 2))
    assert len(text.encode()) <= whole - 1000
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 1000)
    with pytest.raises(QreditError, match="would exceed"):
        render_page(collect_runs([folder]))


@pytest.mark.e2e
def test_a_long_run_with_full_records_is_under_6_mb(tmp_path, monkeypatch):
    """A quarter of the records that such a run has, on a quarter of the page."""
    assert paging.MAX_PAGE_BYTES == 6_000_000
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 1_500_000)
    ids = [5, 6, 7] * 170
    spans = {"rationale": [[0, 500]], "close": [], "response": [], "answer": [[500, 510]], "sampled": [[0, 500]]}
    values = [[[float(f"{math.sin(n):.4g}"), 1] for n in range(510)]] * 2
    row = record()["rollouts"][0] | {"ids": ids, "spans": spans, "values": values}
    credit = [record(step=step, rollouts=[row | {"rollout": n} for n in range(16)]) for step in range(1, 11)]
    folder = made_run(tmp_path / "made", [entry(step) for step in range(1, 2001)], credit=credit)
    text, _, data = report(folder)
    assert len(text.encode()) < 1_500_000
    assert 2 <= len(data["runs"][0]["records"]) < 10


# --- the command


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made_run(tmp_path / "made", credit=[record()])


def test_the_command_writes_one_file_and_leaves_the_run_alone(written, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    assert main(["report", str(written), "--output", "pages/one.html", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == "pages/one.html"
    assert (tmp_path / "pages" / "one.html").stat().st_size == told["bytes"]
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["one.html"]


def test_an_older_report_is_replaced_and_no_other_file(written, tmp_path, capsys):
    assert main(["report", str(written)]) == main(["report", str(written), "--beside", "rloo()"]) == 0
    assert "rloo()" in (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").write_text("my own page")
    assert main(["report", str(written)]) == 2
    assert "is no report of ours" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "my own page"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "no run in none: there is no such folder"),
        (["."], "no run in .: it has neither config.yaml nor metrics.jsonl"),
        (["made", "--output", "made"], "made is a folder"),
        (["made", "--output", "/proc/none/x.html"], "cannot write /proc/none/x.html"),
        (["made", "--beside", "gral()"], "did you mean 'garl'"),
        (["made", "--outptu", "x"], "unknown flag"),
        ([], "required"),
    ],
)
def test_what_the_report_cannot_use_is_refused_in_one_line(written, words, said, capsys):
    assert main(["report", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert len(told.splitlines()) == 1


def test_a_training_run_leaves_what_its_report_shows(tmp_path, capsys):
    setup = {
        "task": "jsonl",
        "data": data_file(tmp_path / "t.jsonl"),
        "model": model_folder(tmp_path / "tiny"),
        **SHORT,
    }
    assert main(["train", "--quiet", *flags(**setup, output=tmp_path / "run", objective="garl(q=0.5)")]) == 0
    path = write_report([tmp_path / "run"], tmp_path / "r.html")
    found = Page(path.read_text())
    records = json.loads(found.data)["runs"][0]["records"]
    assert [one["step"] for one in records] == [1, 2]
    assert records[0]["objective"] == "garl(q=0.5)"
    assert "garl(q=0.5) on jsonl" in found.said


def test_learned_needs_no_more_than_an_objective_and_rows(tmp_path):
    """The recorder serves a loop of one's own: everything but objective, rows and batch may be left out."""
    _, seen = recorded(tmp_path, steps=1)
    bare = ScoredMicrobatch(seen[1].objective, seen[1].rows, replace(seen[1].batch))
    found = make_record(bare, TokenTexts(tokenizer()))
    assert (found["gold"], found["responses"]) == (None, [])


def test_decisions_are_told_and_shown_as_text(tmp_path):
    folder = made_run(tmp_path / "guided")
    lines = [
        {"step": 0, "change": "garl(q=0.9)", "reason": "median p̂ is 1e-14"},
        {"step": 7, "change": "paft(q=0)", "reason": HOSTILE},
    ]
    (folder / "decisions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    run = collect_runs([folder])[0]
    assert "It was guided: from garl(q=0.9) after step 0; last, after step 7: paft(q=0)." in describe_run(run)
    read = Page(render_page([run]))
    assert "Decisions" in read.texts
    assert "median p̂ is 1e-14" in read.texts
    assert not any(tag == "img" for tag, _ in read.elements)
    assert "Decisions" not in Page(render_page(collect_runs([made_run(tmp_path / "plain")]))).texts


# --- the entropy law


def run_of(tmp_path, entropies, rewards):
    """A run of these steps; five of them are a stretch."""
    told = [entry(n, entropy=h, reward=r) for n, (h, r) in enumerate(zip(entropies, rewards, strict=True), 1)]
    return collect_runs([made_run(tmp_path / "run", told)])[0]


def on_law(a, b, entropies):
    return [b - a * math.exp(h) for h in entropies]


FALLING = [h for h in (1.0, 0.8, 0.6, 0.4, 0.2, 0.1) for _ in range(5)]


def test_the_entropy_law_of_a_run_is_found(tmp_path):
    run = run_of(tmp_path, FALLING, on_law(0.3, 1.1, FALLING))
    law = fit_entropy_law(run)
    assert (law.a, law.b, law.ceiling, law.r2, law.stretches) == pytest.approx((0.3, 1.1, 0.8, 1.0, 6))
    told = " ".join(describe_run(run))
    assert "R = 1.1 - 0.3·e^H (over 6 stretches, R² = 1.00) foretells a mean reward of 0.8" in told


def test_a_law_that_does_not_hold_has_no_ceiling(tmp_path):
    run = run_of(tmp_path, FALLING, on_law(-0.1, 0.1, FALLING))
    assert "Reward did not rise as entropy fell" in " ".join(describe_run(run))
    assert "foretells" not in " ".join(describe_run(run))


def test_a_law_that_fits_poorly_has_no_ceiling(tmp_path):
    bent = [r for r in (0.1, 0.9, 0.2, 0.8, 0.3, 0.9) for _ in range(5)]
    told = " ".join(describe_run(run_of(tmp_path, FALLING, bent)))
    assert "fits poorly" in told
    assert "foretells" not in told


@pytest.mark.parametrize("entropies", [FALLING[:24], [0.5] * 30, [0.5, 0.51] * 15])
def test_no_law_is_read_from_few_or_equal_entropies(tmp_path, entropies):
    assert fit_entropy_law(run_of(tmp_path, entropies, [n / 30 for n in range(len(entropies))])) is None
