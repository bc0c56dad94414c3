"""Runs end to end on tiny models: what they leave on disk, that they repeat and resume, and how they are evaluated."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import qredit.callbacks.validation as validate
import qredit.samplers.answers as answering
from qredit.callbacks.sample_writer import SampleWriter
from qredit.callbacks.validation import find_best_step
from qredit.cli import main
from qredit.engine.checkpoint import find_damage, list_checkpoints, trim_lines
from qredit.rollouts.sampling_params import TokenBudget
from qredit.runs.folder import RECORDED_PACKAGES, RunFolder
from qredit.runs.options import TrainOptions
from qredit.runs.plan import format_memory
from qredit.runs.train import make_config
from qredit.stats.interval import Interval
from qredit.tasks.jsonl import make_jsonl_task
from qredit.utils.sanitize import escape_control_chars, summarize_error
from tests.support.folders import SHORT, data_file, flags, lines, model_folder, rows
from tests.support.marks import e2e
from tests.support.paths import ROOT
from tests.support.tiny import tokenizer
from tests.tasks.test_tasks import FILES, copies, write

STEPS = 6
WHOLE = {"steps": STEPS, "save_every": 2, "eval_every": 3, "eval_k": 2}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "tiny")


def data_folder(folder):
    folder.mkdir()
    data_file(folder / "train.jsonl")
    data_file(folder / "validation.jsonl", rows(3, prompt=lambda n: f"How many is {n}? "))
    data_file(folder / "test.jsonl", rows(4, prompt=lambda n: f"And what is {n}? "))
    return folder


@pytest.fixture
def data(tmp_path):
    return data_folder(tmp_path / "data")


@pytest.fixture(scope="module")
def finished(network, tmp_path_factory):
    """A run of two steps with a checkpoint after each; tests that change what it left take `trained`."""
    folder = tmp_path_factory.mktemp("finished")
    chosen = {"task": "jsonl", "data": data_folder(folder / "data"), "model": network, **SHORT, "save_every": 1}
    assert main(["train", "--quiet", *flags(**chosen, output=folder / "run")]) == 0
    return RunFolder(folder / "run")


@pytest.fixture
def trained(finished, tmp_path):
    """A copy of that run, of this test alone."""
    return RunFolder(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(network, tmp_path_factory):
    """The run that interrupted ones are compared with: never interrupted, validated at steps 3 and 6."""
    folder = tmp_path_factory.mktemp("whole")
    chosen = {"task": "jsonl", "data": data_folder(folder / "data"), "model": network, **SHORT, **WHOLE}
    assert main(["train", "--quiet", *flags(**chosen, output=folder / "run")]) == 0
    return RunFolder(folder / "run")


@pytest.fixture
def train(network, data, tmp_path, capsys):
    """Trains into a folder of that name; returns the run folder and its JSON."""

    def run(name="run", *words, **options):
        chosen = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / name, **SHORT} | options
        capsys.readouterr()
        status = main(["train", "--json", "--quiet", *words, *flags(**chosen)])
        found = json.loads(capsys.readouterr().out)
        assert status == 0, found
        return RunFolder(tmp_path / name), found

    return run


@pytest.fixture
def evaluated(capsys):
    """Evaluates with the words given; returns the JSON."""

    def run(*words, **options):
        capsys.readouterr()
        status = main(["eval", "--json", "--quiet", *words, *flags(**options)])
        found = json.loads(capsys.readouterr().out)
        assert status == 0, found
        return found

    return run


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def logits(folder):
    ids = torch.tensor([tokenizer()("the cat lives in the house").input_ids])
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits


# --- what a run leaves


def test_a_run_folder_holds_its_config_records_and_model(train, data, network):
    run, told = train(seed=3, save_every=1, reward="normalized_exact_match")
    assert told["final"] == str(run.final)
    assert sorted(path.name for path in run.path.iterdir()) == [
        *("README.md", "checkpoint-1", "checkpoint-2", "config.yaml", "credit.jsonl", "final"),
        *("metrics.jsonl", "record.json", "samples.jsonl"),
    ]
    kept = yaml.safe_load(run.config.read_text())
    assert {name: kept[name] for name in SHORT} == SHORT
    assert (kept["data"], kept["model"], kept["seed"]) == (str(data), str(network), 3)
    record = json.loads(run.record.read_text())
    assert record["seed"] == 3
    assert set(record["versions"]) == {*RECORDED_PACKAGES, "python"}
    assert record["versions"]["torch"].startswith("2.")
    assert record["objective"] == told["objective"] == "garl(q=0.75)"
    assert (record["train_examples"], record["train_prompts"], record["unparseable_golds"]) == (6, 6, 0)
    steps = [line for line in lines(run.metrics) if "grad_norm" in line]
    assert [line["step"] for line in steps] == [1, 2]
    assert {"reward", "p_hat/log10_q50", "q", "time/sample", "rewards/normalized_exact_match/mean"} <= steps[0].keys()
    samples = lines(run.samples)
    assert [line["step"] for line in samples] == [1, 2]
    assert all(len(line["completions"]) == SHORT["m"] for line in samples)
    assert all(line["prompt"].startswith("What is") for line in samples)


def test_the_final_model_is_loadable_and_has_learned(finished, network):
    run = finished
    assert AutoTokenizer.from_pretrained(run.final)("the cat").input_ids == tokenizer()("the cat").input_ids
    model = AutoModelForCausalLM.from_pretrained(run.final)
    assert model.dtype == torch.float32
    assert not same(weights(run.final), weights(network))


@pytest.mark.e2e
def test_learning_raises_the_likelihood_of_the_answers(train):
    run, _ = train(steps=16, m=4, lr=3e-2)
    likelihood = [line["p_hat/log10_q50"] for line in lines(run.metrics) if "p_hat/log10_q50" in line]
    assert sum(likelihood[-5:]) / 5 > sum(likelihood[:5]) / 5 + 1


@pytest.mark.parametrize(
    "objective", ["grpo", "paft(q=0.5)", *map(e2e, ("verifree", "maxrl", "dr_grpo", "sft_then_rlvr"))]
)
def test_objectives_are_trained_by_name_or_in_full(train, objective):
    assert train(objective=objective, steps=1)[1]["objective"].startswith(objective.split("(")[0])


@pytest.mark.e2e
def test_chat_messages_may_be_prompts(train, tmp_path):
    folder = model_folder(tmp_path / "chat", chat=True)
    message = rows(prompt=lambda n: [{"role": "user", "content": f"What is {n}?"}])
    path = data_file(tmp_path / "chat.jsonl", message)
    run, _ = train(data=path, model=folder)
    assert lines(run.samples)[0]["prompt"][0]["role"] == "user"
    assert AutoTokenizer.from_pretrained(run.final).chat_template


def test_gold_answers_that_no_reward_can_read_are_counted(train, data):
    data_file(data / "train.jsonl", rows(answer=lambda n: "none of them" if n < 2 else str(n)))
    assert train(reward="numeric", steps=1)[1]["unparseable_golds"] == 2


@pytest.mark.e2e
def test_dtype_sets_the_computation_and_weights_stay_float32(train):
    plain, half = train("plain", dtype="float32")[0], train("half", dtype="bfloat16")[0]
    assert {tensor.dtype for tensor in weights(half.final).values()} == {torch.float32}
    assert not same(weights(half.final), weights(plain.final))


# --- runs repeat and resume


@pytest.mark.e2e
def test_a_run_repeats_from_its_own_config(train, tmp_path):
    first, _ = train("first", seed=5, objective="paft", q=0.5, max_grad_norm=0.3)
    assert main(["train", "--quiet", "--config", str(first.config), "--output", str(tmp_path / "second")]) == 0
    second = RunFolder(tmp_path / "second")
    assert same(weights(second.final), weights(first.final))
    assert second.config.read_text() == first.config.read_text()
    third, _ = train("third", seed=6, objective="paft", q=0.5, max_grad_norm=0.3)
    assert not same(weights(third.final), weights(first.final))


@pytest.fixture
def cut(monkeypatch, capsys, network, data, tmp_path):
    """Trains, interrupted in a step; returns the run folder."""

    def run(name, in_step, **options):
        started = SampleWriter.on_step_begin

        def interrupt(self, args, state, control, **kwargs):
            if state.global_step == in_step:
                raise KeyboardInterrupt

        monkeypatch.setattr(SampleWriter, "on_step_begin", interrupt)
        chosen = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / name, **SHORT} | options
        assert main(["train", "--quiet", *flags(**chosen)]) == 130
        monkeypatch.setattr(SampleWriter, "on_step_begin", started)
        return RunFolder(tmp_path / name)

    return run


@pytest.mark.parametrize("in_step", [e2e(1), 3, e2e(5)])
def test_a_resumed_run_ends_like_an_uninterrupted_one(whole, cut, tmp_path, in_step):
    """Checkpoints at 2 and 4: the steps since the last one are done again, before the first all of them."""
    run = cut("cut", in_step, **WHOLE)
    assert not run.final.exists()
    assert main(["train", "--quiet", "--resume", "--output", str(run.path)]) == 0
    assert same(weights(run.final), weights(whole.final))
    for name in ("samples", "validation"):
        assert getattr(run, name).read_text() == getattr(whole, name).read_text()
    told = [(line["step"], line["reward"]) for line in lines(run.metrics) if "reward" in line]
    assert told == [(line["step"], line["reward"]) for line in lines(whole.metrics) if "reward" in line]


@pytest.fixture
def signalled(monkeypatch, capsys, network, data, tmp_path):
    """Trains, and is sent signals in a step; returns the run folder and the last line of what was said."""

    def run(name, in_step, *signals, **options):
        started = SampleWriter.on_step_begin

        def send(self, args, state, control, **kwargs):
            if state.global_step == in_step:
                for number in signals:  # to this thread: another one may take it later, and two for one
                    signal.pthread_kill(threading.main_thread().ident, number)

        monkeypatch.setattr(SampleWriter, "on_step_begin", send)
        chosen = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / name, **SHORT} | options
        capsys.readouterr()
        assert main(["train", *flags(**chosen)]) in (130, 143)
        monkeypatch.setattr(SampleWriter, "on_step_begin", started)
        return RunFolder(tmp_path / name), capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, e2e(signal.SIGTERM)])
def test_an_interrupted_run_ends_later_as_if_never_stopped(whole, signalled, number):
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    run, said = signalled("cut", 2, number, steps=STEPS, save_every=100)
    assert {each: signal.getsignal(each) for each in before} == before
    assert any("stopping after this step, then saving it" in line for line in said)
    assert f"; saved at step 3 of {STEPS}; go on with it: qredit train --resume --output {run.path}" in said[-1]
    assert [path.name for path in list_checkpoints(run.path)] == ["checkpoint-3"]
    assert not run.final.exists()
    assert main(["train", "--quiet", "--resume", "--output", str(run.path)]) == 0
    assert same(weights(run.final), weights(whole.path / f"checkpoint-{STEPS}"))


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("save_every", "said_of_it"),
    [(0, f"nothing saved yet (3 of {STEPS} steps lost)"), (2, f"saved at step 2 of {STEPS} (1 step lost)")],
)
def test_second_interrupt_ends_at_once_and_says_what_is_lost(signalled, save_every, said_of_it):
    run, said = signalled("cut", 3, signal.SIGINT, signal.SIGINT, steps=STEPS, save_every=save_every)
    assert said[-1].startswith(f"qredit: interrupted; {said_of_it}; go on with it: qredit train --resume --output ")
    assert [path.name for path in list_checkpoints(run.path)] == (["checkpoint-2"] if save_every else [])


def test_an_interrupt_in_the_last_step_is_no_interrupt(network, data, tmp_path, monkeypatch):
    def send(self, args, state, control, **kwargs):
        if state.global_step == SHORT["steps"] - 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(SampleWriter, "on_step_begin", send)
    chosen = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / "run", **SHORT}
    assert main(["train", "--quiet", *flags(**chosen)]) == 0
    assert (tmp_path / "run" / "final").is_dir()


def test_a_resumed_run_keeps_every_command(trained, monkeypatch):
    first = json.loads(trained.record.read_text())["commands"]
    monkeypatch.setattr("sys.argv", ["qredit", "train", "--resume"])
    assert main(["train", "--quiet", "--resume", *flags(output=trained.path, steps=3)]) == 0
    assert len(first) == 1
    assert json.loads(trained.record.read_text())["commands"] == [*first, ["qredit", "train", "--resume"]]


@pytest.mark.e2e
def test_resuming_a_finished_run_with_more_steps_goes_on(trained, train):
    long, _ = train("long", steps=4, save_every=1)
    assert not same(weights(trained.final), weights(long.final))
    assert main(["train", "--quiet", "--resume", *flags(output=trained.path, steps=4)]) == 0
    assert same(weights(trained.final), weights(long.final))


def test_resuming_a_finished_run_leaves_it_as_it_is(trained):
    before = weights(trained.final)
    assert main(["train", "--quiet", "--resume", *flags(output=trained.path)]) == 0
    assert same(weights(trained.final), before)
    assert [line["step"] for line in lines(trained.samples)] == [1, 2]


def test_resuming_a_run_without_its_final_model_writes_it(trained, capsys):
    run = trained
    before = weights(run.final)
    run.final.rename(run.path / "_final")
    capsys.readouterr()
    assert main(["train", "--quiet", "--json", "--resume", *flags(output=run.path)]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert same(weights(run.final), before)
    assert not (run.path / "_final").exists()


@pytest.mark.parametrize(
    ("checkpoints", "after", "words"),
    [
        (False, {"save_every": 0, "steps": 4}, "is finished, and kept no checkpoint to go on from"),
        (True, {"save_every": 1, "steps": 1}, "has done 2 steps, more than steps=1"),
    ],
)
def test_a_finished_run_is_not_thrown_away_by_a_resume(trained, capsys, checkpoints, after, words):
    run = trained
    for path in () if checkpoints else list_checkpoints(run.path):
        shutil.rmtree(path)
    kept = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["train", "--quiet", "--resume", "--output", str(run.path), *flags(**after)]) == 2
    assert words in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == kept


@pytest.mark.e2e
def test_a_torn_checkpoint_is_named_and_one_before_it_is_taken(whole, cut, capsys):
    run = cut("cut", 5, steps=STEPS, save_every=2)
    torn = run.path / "checkpoint-4" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-7])
    capsys.readouterr()
    assert main(["train", "--resume", "--output", str(run.path)]) == 0
    assert "skipping checkpoint-4: model.safetensors has" in capsys.readouterr().err
    assert same(weights(run.final), weights(whole.path / f"checkpoint-{STEPS}"))


@pytest.mark.parametrize("character", ["\x85", "\u2028"])
def test_lines_are_kept_on_resume_whatever_is_in_them(tmp_path, character):
    path = tmp_path / "samples.jsonl"
    kept = [json.dumps({"step": n, "text": f"a{character}b"}, ensure_ascii=False) + "\n" for n in (1, 2, 3)]
    path.write_text("".join(kept) + '{"step": 3, "te', encoding="utf-8")
    trim_lines(path, 2)
    assert path.read_text(encoding="utf-8") == "".join(kept[:2])


# --- validation


def scripted(monkeypatch, values):
    """m@k of the validations, in their order."""
    told = iter(values)
    summary = validate.summarize

    def pretended(answered, scorer, k):
        return summary(answered, scorer, k) | {f"m@{k}": Interval(next(told), 0.0, 1.0)}

    monkeypatch.setattr(validate, "summarize", pretended)


@pytest.mark.parametrize(("values", "best"), [((0.1, 0.6, 0.2), 2), e2e((0.5, 0.5, 0.2), 1), e2e((0.0, 0.1, 0.2), 3)])
def test_the_final_model_is_the_best_checkpoint_by_validation(train, monkeypatch, values, best):
    scripted(monkeypatch, values)
    run, told = train(steps=3, eval_every=1, eval_k=2)
    assert told["best_step"] == best
    assert [line["m@2"] for line in lines(run.validation)] == list(values)
    assert all(line["questions"] == 3 for line in lines(run.validation))
    assert same(weights(run.final), weights(run.path / f"checkpoint-{best}"))
    assert not same(weights(run.final), weights(run.path / f"checkpoint-{4 - best if best != 2 else 1}"))
    assert AutoTokenizer.from_pretrained(run.final)("the").input_ids
    assert not list(run.final.glob("*state*"))
    assert not (run.final / "manifest.json").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("value", [0.0, 0.4])
def test_a_tie_is_not_best(train, monkeypatch, value):
    """Where all validations are equal no checkpoint is better than another: the last weights are the model."""
    scripted(monkeypatch, (value,) * 2)
    run, told = train(steps=2, eval_every=1, eval_k=2)
    assert told["best_step"] is None
    assert same(weights(run.final), weights(run.path / "checkpoint-2"))


@pytest.mark.e2e
def test_a_run_without_a_reward_ends_with_what_to_try(network, data, tmp_path, capsys):
    chosen = {"task": "jsonl", "data": data, "model": network, **SHORT, "eval_every": 1, "eval_k": 2}
    data_file(data / "train.jsonl", rows(answer=lambda n: "Paris is big, London is bigger."))
    data_file(data / "validation.jsonl", rows(2, answer=lambda n: "Paris is big, London is bigger."))
    assert main(["train", "--quiet", *flags(objective="grpo", output=tmp_path / "run", **chosen)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "No logged step had a single rollout with a reward." in out
    assert "with `qredit probe`" in out
    assert "such as garl, learns without a rewarded rollout" in out
    assert "best validation" not in out
    assert main(["train", "--quiet", *flags(output=tmp_path / "garl", **chosen)]) == 0
    assert "such as garl" not in capsys.readouterr().out


@pytest.mark.e2e
def test_the_best_checkpoint_survives_a_limit_on_checkpoints(train, monkeypatch):
    scripted(monkeypatch, (0.1, 0.6, 0.2, 0.3))
    run, told = train(steps=4, eval_every=1, eval_k=2, save_total_limit=2)
    assert told["best_step"] == 2
    assert {path.name for path in list_checkpoints(run.path)} == {"checkpoint-2", "checkpoint-4"}
    assert same(weights(run.final), weights(run.path / "checkpoint-2"))


@pytest.mark.e2e
def test_the_best_step_is_known_after_a_resume(train, cut, monkeypatch):
    scripted(monkeypatch, (0.6, 0.1, 0.2, 0.3))
    run = cut("cut", 2, steps=4, eval_every=1, eval_k=2, save_total_limit=1)
    assert main(["train", "--quiet", "--resume", "--output", str(run.path)]) == 0
    assert find_best_step(run.validation, "m@2") == 1
    assert find_damage(run.path / "checkpoint-1") is None
    assert same(weights(run.final), weights(run.path / "checkpoint-1"))


@pytest.mark.e2e
def test_validation_does_not_disturb_the_training(train):
    watched, _ = train("watched", steps=4, eval_every=2, eval_k=2)
    plain, _ = train("plain", steps=4, save_every=4)
    assert same(weights(watched.path / "checkpoint-4"), weights(plain.final))
    validation = {name for line in lines(watched.metrics) for name in line if name.startswith("validation/")}
    assert {"validation/p@1", "validation/m@2"} <= validation


# --- adapters


@pytest.mark.e2e
@pytest.mark.parametrize("validated", [False, True])
def test_merged_adapters_are_a_plain_model_with_the_same_logits(train, validated, network):
    extra = {"eval_every": 2, "eval_k": 2} if validated else {}
    adapters, _ = train("adapters", lora=True, lora_r=4, **extra)
    merged, _ = train("merged", lora=True, lora_r=4, merge_lora=True, **extra)
    assert (adapters.final / "adapter_model.safetensors").exists()
    assert not list(merged.final.glob("adapter_*"))
    assert json.loads((merged.final / "config.json").read_text())["model_type"] == "qwen3"
    assert not [name for name in weights(merged.final) if "lora" in name]
    assert torch.allclose(logits(merged.final), logits(adapters.final), atol=1e-5)
    assert not torch.allclose(logits(merged.final), logits(network), atol=1e-5)


@pytest.mark.e2e
def test_a_run_with_adapters_resumes_and_is_evaluated(train, cut, evaluated):
    options = {"steps": 4, "save_every": 2, "lora": True, "lora_r": 4}
    whole, _ = train("whole", **options)
    run = cut("cut", 3, **options)
    assert main(["train", "--quiet", "--resume", "--output", str(run.path)]) == 0
    left, right = (load_file(folder.final / "adapter_model.safetensors") for folder in (run, whole))
    assert same(left, right)
    assert evaluated(model=run.path, k=2)["questions"] == 4


@pytest.mark.e2e
def test_adapters_alone_are_no_model_to_train_from(train, capsys, tmp_path, data):
    run, _ = train("adapters", lora=True, lora_r=4)
    words = flags(task="jsonl", data=data, model=run.final, output=tmp_path / "next", **SHORT)
    assert main(["train", *words]) == 2
    assert "holds LoRA adapters only" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


# --- dry runs


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(train, data, network, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    words = flags(task="jsonl", data=data, model=network, output=tmp_path / "run", **SHORT)
    assert main(["train", "--dry-run", *words]) == 0
    shown = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert shown.count("What is ") == 3
    assert shown.count(" <think>\n") == 3
    close, end = (tokenizer().convert_tokens_to_ids(token) for token in ("</think>", "<end>"))
    assert f"closing   {close} '</think>'" in shown
    assert f"{end} '<end>'" in shown
    assert "answer tokens: 2 to 2, median 2" in shown
    assert "6 examples, 2 groups of 2 rollouts per step, 3 steps per epoch" in shown
    assert "GiB" in shown
    assert "max_completion_length=8: 5 tokens for the rationale and answer_budget=3 for the answer" in shown


def test_the_json_of_a_dry_run(train, tmp_path):
    _, plan = train("run", "--dry-run", prompts_per_step=4, prompts_per_forward=2)
    assert not (tmp_path / "run").exists()
    assert len(plan["prompts"]) == 3
    assert plan["seam"]["closing"] == [[tokenizer().convert_tokens_to_ids("</think>"), "</think>"]]
    assert [text for _, text in plan["seam"]["appended"]][-1] == "<end>"
    assert plan["answer_tokens"] == {"min": 2, "median": 2, "max": 2}
    assert (plan["groups_per_step"], plan["rollouts_per_group"], plan["steps_per_epoch"]) == (4, 2, 1)
    assert (plan["examples"], plan["left_out"]) == (6, 0)
    assert (plan["overlap"]["trained"], plan["overlap"]["repeated_loosely"]) == (6, 0)
    assert plan["parameters"] == 19568
    assert set(plan["memory_gib"]["parts"]) == {"sampling", "scoring", "update"}


def test_a_dry_run_says_how_long_completions_may_be_and_why(train):
    _, plan = train("run", "--dry-run", max_completion_length=9, answer_budget=None)
    assert (plan["max_completion_length"], plan["answer_budget"]) == (9, 4)
    memory = plan["memory_gib"]
    assert memory["peak"] == pytest.approx(sum(memory["parts"][memory["phase"]].values()), abs=0.02)
    assert memory["least"] <= memory["peak"]


def test_a_dry_run_takes_no_step(train, monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("a step was taken")

    monkeypatch.setattr("qredit.trl.trainer.QreditTrainer.training_step", refused)
    monkeypatch.setattr("qredit.trl.trainer.QreditTrainer._draw", refused)
    monkeypatch.setattr("torch.Tensor.backward", refused)
    assert train("run", "--dry-run")[1]["memory_gib"]["rows"] == 4


def test_a_dry_runs_memory_is_of_the_rows_of_a_pass():
    memory = {
        "peak": 30.0,
        "phase": "update",
        "decided_by": "moments",
        "parts": {"sampling": {"weights": 5.0}, "update": {"moments": 20.0, "weights": 10.0, "head": 0.001}},
        "rows": 64,
        "rows_at_once": 3,
        "least": 29.0,
        "available": 20.0,
        "fits": False,
        "advice": "train with lora",
    }
    first, _, update, here, last = format_memory(memory)
    assert first == (
        "memory: about 30.00 GiB at the most, while updating, mostly moments of the optimiser; 3 of 64 rows in one "
        "forward pass"
    )
    assert update == "  updating: 30.00 GiB (moments of the optimiser 20.00, weights 10.00)"
    assert "here 20.00 GiB can be had" in here
    assert "rows_per_forward=1, is about 29.00 GiB" in here
    assert last == "  it does not fit here: train with lora"


def test_plan_counts_groups_of_a_step_and_not_of_a_generation(train):
    _, plan = train("run", "--dry-run", prompts_per_step=4, prompts_per_forward=2, steps_per_generation=1)
    assert (plan["groups_per_step"], plan["steps_per_epoch"]) == (4, 1)


def test_fewer_than_three_prompts_can_be_shown(train, data):
    data_file(data / "train.jsonl", rows(2))
    assert len(train("run", "--dry-run")[1]["prompts"]) == 2


# --- evaluation


def test_a_run_folder_is_evaluated_with_its_own_options(train, evaluated, data):
    run, _ = train(style="warm", answer_column="answer")
    for model in (run.path, run.final):
        found = evaluated(model=model, k=3)
        assert (found["task"], found["style"], found["split"]) == ("jsonl", "warm", "test")
        assert (found["questions"], found["k"], found["scorer"]) == (4, 3, "exact_match")
        assert {"p@1", "p@3", "m@3"} <= found["metrics"].keys()
    assert evaluated(model=run.path, k=1, split="validation")["questions"] == 3
    assert evaluated(model=run.path, k=1, limit=2)["questions"] == 2


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        ({}, TokenBudget(thinking=32, answer=8)),
        ({"model": "owner/name"}, TokenBudget(thinking=1920, answer=128)),
        ({"max_completion_length": 20, "answer_budget": 6}, TokenBudget(thinking=14, answer=6)),
        # a default that nobody gave makes room for what was given, to half of the whole
        ({"model": "owner/name", "max_completion_length": 64}, TokenBudget(thinking=32, answer=32)),
        ({"model": "owner/name", "max_completion_length": 1}, TokenBudget(thinking=0, answer=1)),
        ({"max_completion_length": 12}, TokenBudget(thinking=6, answer=6)),
        ({"answer_budget": 100}, TokenBudget(thinking=100, answer=100)),
    ],
)
def test_training_and_evaluation_sample_as_many_tokens(tmp_path, given, budget):
    options = TrainOptions(**given)
    assert options.sampling_budget == make_config(options, tmp_path).budget == budget


def test_run_folder_and_its_final_model_have_the_same_samples(trained, evaluated, tmp_path, data):
    run = trained
    plain = {"task": "jsonl", "data": data, "max_completion_length": 8, "answer_budget": 3}
    evaluated(model=run.path, k=2, samples=tmp_path / "run.samples")
    evaluated(model=run.final, k=2, samples=tmp_path / "final.samples")
    moved = run.final.rename(tmp_path / "elsewhere")
    evaluated(model=moved, k=2, samples=tmp_path / "plain.samples", **plain)
    first = lines(tmp_path / "run.samples")
    assert first == lines(tmp_path / "final.samples") == lines(tmp_path / "plain.samples")
    assert [len(line["predictions"]) for line in first] == [2] * 4


def test_given_options_win_over_those_of_the_run(trained, evaluated, tmp_path):
    run = trained
    other = data_file(tmp_path / "test.jsonl", rows(2))
    assert evaluated(model=run.path, data=other, k=1)["questions"] == 2


@pytest.mark.e2e
def test_template_switches_of_a_run_are_used_in_its_evaluation(train, evaluated, tmp_path, monkeypatch):
    folder = model_folder(tmp_path / "chat", chat=True)
    run, _ = train(model=folder, chat_template_kwargs="{'opened': True}")
    seen = []
    prompt_ids = answering.TokenFormat.prompt_ids
    noted = lambda self, prompt, **kw: seen.append(kw) or prompt_ids(self, prompt, **kw)  # noqa: E731
    monkeypatch.setattr(answering.TokenFormat, "prompt_ids", noted)
    evaluated(model=run.path, k=1)
    assert seen
    assert all(template == {"opened": True} for template in seen)


def test_greedy_evaluation_draws_each_answer_once(trained, evaluated, tmp_path, capsys):
    run = trained
    for seed in (0, 1):
        found = evaluated(model=run.path, temperature=0, seed=seed, samples=tmp_path / f"samples-{seed}")
        assert (found["k"], {"p@1", "m@1"} <= found["metrics"].keys()) == (1, True)
    assert lines(tmp_path / "samples-0") == lines(tmp_path / "samples-1")
    assert main(["eval", *flags(model=run.path, temperature=0, k=2)]) == 2
    assert "temperature 0 draws one and the same answer 2 times" in capsys.readouterr().err


def test_another_model_is_asked_the_same_questions(trained, evaluated, tmp_path, network):
    run = trained
    for other in (network, run.final):
        samples = tmp_path / f"{other.name}.jsonl"
        found = evaluated(model=run.path, against=other, k=2, samples=samples)
        theirs = found["against"]
        beside = tmp_path / f"{other.name}-against.jsonl"
        assert (found["samples"], theirs["samples"]) == (str(samples), str(beside))
        assert [line["id"] for line in lines(samples)] == [line["id"] for line in lines(beside)]
        assert (theirs["model"], theirs["questions_of_both"]) == (str(other), 4)
        assert set(theirs["difference"]) == {"p@1", "p@2", "m@2"}
        for name, difference in theirs["difference"].items():
            values = found["metrics"][name]["value"], theirs["metrics"][name]["value"]
            assert difference["value"] == pytest.approx(values[0] - values[1])
            assert difference["low"] <= difference["value"] <= difference["high"]
    assert lines(samples) == lines(beside)  # the run and its own final model


def test_the_other_model_is_checked_before_the_first_is_asked(trained, tmp_path, capsys, monkeypatch):
    run = trained
    monkeypatch.setattr(answering, "think", lambda *a, **k: pytest.fail("sampled"))
    assert main(["eval", *flags(model=run.path, against=tmp_path / "nowhere", k=2)]) == 2
    assert f"no model folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert main(["eval", *flags(model=run.path, against=run.path, k=2)]) == 2
    assert "against must be another model" in capsys.readouterr().err
    (run.path / "eval-test-against.jsonl").write_text("precious")
    assert main(["eval", *flags(model=run.path, against=run.final, k=2)]) == 2
    assert "eval-test-against.jsonl exists already" in capsys.readouterr().err


def test_an_interrupted_evaluation_keeps_the_samples_it_has(trained, monkeypatch, tmp_path):
    run = trained
    think, calls = answering.think, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return think(*args, **kwargs)

    monkeypatch.setattr(answering, "think", interrupted)
    words = flags(model=run.path, k=2, rows_per_batch=2, samples=tmp_path / "samples")
    assert main(["eval", "--quiet", *words]) == 130
    assert len(lines(tmp_path / "samples")) == 2


def test_the_table_of_an_evaluation_says_how_ties_count(trained, capsys):
    run = trained
    assert main(["eval", "--quiet", *flags(model=run.path, k=2)]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in ("p@1", "p@2", "m@2", "exact_match"))
    assert "a tie in m@k counts its expectation" in shown


# --- an official data set with a model that thinks


@pytest.mark.e2e
def test_finqa_is_trained_cold_and_evaluated_with_a_chat_model(train, evaluated, tmp_path):
    folder, records = tmp_path / "finqa", copies("finqa", 6)
    folder.mkdir()
    for name in ("train", "validation", "test"):
        write(folder / FILES["finqa"][name], [{**record, "id": f"{name} {record['id']}"} for record in records])
    chat = model_folder(tmp_path / "chat", chat=True, max_position_embeddings=512)
    run, told = train(task="finqa", data=folder, style="cold", model=chat, eval_every=1, eval_k=2)
    assert (told["steps"], told["train_examples"], told["objective"]) == (2, 6, "garl(q=0.75)")
    assert told["best_step"] in (None, 1, 2)
    assert "sales rose" in lines(run.samples)[0]["prompt"][0]["content"]
    likelihood = [line["p_hat/log10_q50"] for line in lines(run.metrics) if "p_hat/log10_q50" in line]
    assert all(-100 < value < 0 for value in likelihood)
    found = evaluated(model=run.path, k=4)
    assert (found["task"], found["questions"], found["scorer"]) == ("finqa", 6, "exact_match")
    assert {"p@1", "p@4", "m@4", "substring", "exact_match", "numeric"} == found["metrics"].keys()
    assert all(0 <= value["low"] <= value["value"] <= value["high"] <= 1 for value in found["metrics"].values())


RECIPES = ROOT / "recipes"


@pytest.mark.e2e
@pytest.mark.parametrize("recipe", ["finqa-cold.yaml", "hotpotqa-warm.yaml"])
def test_a_recipe_runs_on_records_in_the_official_format(recipe, evaluated, tmp_path, capsys):
    """As published but for the model, the lengths and the number of steps: groups of 32, row chunks, validation."""
    task = recipe.split("-")[0]
    folder, records = tmp_path / task, copies(task, 9)
    key = "id" if "id" in records[0] else "_id"
    folder.mkdir()
    for name in ("train", "validation", "test"):
        write(folder / FILES[task][name], [{**record, key: f"{name} {record[key]}"} for record in records])
    chat = model_folder(tmp_path / "chat", chat=True, max_position_embeddings=1024)
    short = {"steps": 1, "max_completion_length": 8, "answer_budget": 3, "eval_every": 1, "eval_questions": 2}
    words = flags(config=RECIPES / recipe, data=folder, model=chat, output=tmp_path / "run", **short)
    assert main(["train", "--json", "--quiet", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["best_step"]) == (1, None)  # one validation compares nothing
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["m"], config["prompts_per_step"], config["rows_per_forward"]) == (32, 8, 4)
    found = evaluated(model=tmp_path / "run", k=2)
    assert (found["task"], found["questions"] > 0) == (task, True)


# --- one file of data


@pytest.mark.e2e
def test_a_single_file_is_divided_where_the_run_validates(train, tmp_path):
    path = data_file(tmp_path / "all.jsonl", rows(8))
    run, told = train(data=path, eval_every=1, eval_questions=3, eval_k=2)
    assert told["train_examples"] == 5
    assert [line["questions"] for line in lines(run.validation)] == [3, 3]
    asked = {line["prompt"] for line in lines(run.samples)}
    held = {e.prompt for e in make_jsonl_task().load(str(path), "train", "cold")[:3]}
    assert asked.isdisjoint(held)


def test_a_single_file_too_small_to_be_divided_is_refused(network, tmp_path, capsys):
    path = data_file(tmp_path / "all.jsonl", rows(3))
    words = flags(task="jsonl", data=path, model=network, output=tmp_path / "run", eval_every=1, eval_questions=3)
    assert main(["train", *words]) == 2
    assert "eval_questions=3 of them are held out for validation" in capsys.readouterr().err


@pytest.mark.e2e
def test_a_run_is_not_evaluated_on_the_file_it_was_trained_on(train, evaluated, tmp_path, capsys):
    path = data_file(tmp_path / "all.jsonl")
    run, _ = train(data=path)
    assert main(["eval", *flags(model=run.path, k=2)]) == 2
    assert f"the run was trained on {path}; give --data" in capsys.readouterr().err
    assert evaluated(model=run.path, k=2, split="train")["questions"] == 6


def test_an_evaluations_samples_are_kept_under_a_free_name(trained, evaluated):
    run = trained
    first, second = evaluated(model=run.path, k=2), evaluated(model=run.path, k=2)
    assert first["samples"] == str(run.path / "eval-test.jsonl")
    assert second["samples"] == str(run.path / "eval-test-2.jsonl")
    assert len(lines(run.path / "eval-test.jsonl")) == first["questions"]


@pytest.mark.e2e
def test_what_the_data_lacks_is_said_once_before_the_run(network, tmp_path, capsys):
    path = data_file(tmp_path / "all.jsonl", rows(answer=lambda n: "one two three four five six seven eight nine"))
    chosen = {"task": "jsonl", "data": path, "model": network, **SHORT, "reward": "numeric"}
    assert main(["train", *flags(output=tmp_path / "run", **chosen)]) == 0
    said = capsys.readouterr()
    for words in ("6 gold answers cannot be read by the reward", "6 gold answers are longer than answer_budget"):
        assert words in said.err
        assert words not in said.out
    assert main(["train", "--quiet", *flags(output=tmp_path / "quiet", **chosen)]) == 0
    assert "6 gold answers cannot be read by the reward" in capsys.readouterr().out
    assert main(["train", "--json", "--dry-run", *flags(**chosen)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["unparseable_golds"], plan["answers_over_budget"]) == (6, 6)


@pytest.mark.e2e
def test_a_run_resumed_inside_a_generation_ends_the_same(train, cut):
    options = {"steps": 4, "save_every": 1, "num_iterations": 2}
    whole, _ = train("whole", **options)
    run = cut("cut", in_step=3, **options)  # steps 3 and 4 share their rollouts
    assert main(["train", "--quiet", "--resume", "--output", str(run.path)]) == 0
    assert same(weights(whole.final), weights(run.final))


@pytest.mark.e2e
def test_template_switches_may_be_json(train, evaluated, tmp_path):
    folder = model_folder(tmp_path / "chat", chat=True)
    run, _ = train(model=folder, chat_template_kwargs='{"enable_thinking": true}')
    assert evaluated(model=run.path, k=2)["questions"] == 4


# --- text that others wrote


def test_control_characters_are_shown_as_their_escapes():
    assert escape_control_chars("a\x1b[2J\x07\x9b\r\u202e\ud800é日\n") == "a\\x1b[2J\\x07\\x9b\\r\\u202e\\ud800é日\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("\nno such model\nsee the list of models"), "no such model"),
        (ValueError("one\ttwo\x0bthree"), "one\ttwo"),
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_of_an_error_by_others_first_line_is_said_or_its_type(error, said):
    assert summarize_error(error) == said


@pytest.fixture(scope="module")
def guided(network, tmp_path_factory):
    """A run whose q falls, on questions with one answer, learned within a few steps; and what its view was told."""
    folder, told = tmp_path_factory.mktemp("guided"), []
    chosen = {"task": "jsonl", "data": data_file(folder / "easy.jsonl", rows(8, answer=lambda n: "7"))}
    chosen |= {"model": network, **SHORT, "q": "auto", "steps": 14, "m": 4, "lr": 2e-2, "warmup": 0, "save_every": 7}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("qredit.runs.live.LiveView.note", lambda self, text: told.append(text))
        assert main(["train", "--quiet", *flags(**chosen, output=folder / "run")]) == 0
    return RunFolder(folder / "run"), told


@pytest.mark.e2e
def test_decisions_after_the_checkpoint_are_made_anew(guided, tmp_path):
    run = RunFolder(shutil.copytree(guided[0].path, tmp_path / "run"))
    kept = lines(run.decisions)
    assert kept[0]["step"] == 0
    assert len(kept) > 2
    assert {"step", "change", "reason"} == set(kept[0])
    logged = {entry["step"]: entry["q"] for entry in lines(run.metrics) if "q" in entry}
    for step, q in logged.items():
        held = [one for one in kept if one["step"] < step][-1]
        assert held["change"].endswith(f"(q={q:g})")
    shutil.rmtree(run.final)
    for path in list_checkpoints(run.path)[:-1]:
        shutil.rmtree(path)
    assert main(["train", "--quiet", "--resume", "--output", str(run.path)]) == 0
    assert lines(run.decisions) == kept


@pytest.mark.e2e
def test_the_newest_decision_is_told_to_the_view(guided):
    run, told = guided
    newest = [lines(run.decisions)[0], lines(run.decisions)[-1]]
    assert [told[0], told[-1]] == [f"after step {one['step']}: {one['change']}; {one['reason']}" for one in newest]


@pytest.mark.e2e
def test_ranks_try_a_folder_at_the_same_time(tmp_path):
    """Each with a file of its own, which another one does not take away."""
    folder = tmp_path / "run"
    code = "import sys; from pathlib import Path; from qredit.runs.folder import ensure_writable\n"
    code += "for _ in range(3000): ensure_writable(Path(sys.argv[1]))"
    ranks = [subprocess.Popen([sys.executable, "-c", code, str(folder)]) for _ in range(2)]
    assert [rank.wait(timeout=200) for rank in ranks] == [0, 0]
    assert list(folder.iterdir()) == []
