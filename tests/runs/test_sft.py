"""qredit sft: what is shown, which tokens count, that runs resume, and that train and eval go on from it."""

import json
import signal
import threading
from dataclasses import fields

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from qredit.callbacks.metrics_file import MetricsWriter
from qredit.cli.main import main
from qredit.data.demonstrations import Demonstration, encode_demonstrations
from qredit.data.rows import RowNames
from qredit.data.token_rules import entropy_sft
from qredit.report.collect import collect_runs
from qredit.report.sentences import describe_run
from qredit.rollouts.format import Format, TokenFormat
from qredit.runs.folder import RunFolder
from qredit.runs.options import TrainOptions
from qredit.runs.sft_options import SHARED_WITH_TRAIN
from qredit.trl import QreditConfig
from qredit.trl.dataset_encoding import encode_datasets
from qredit.trl.sft_trainer import IGNORED_LABEL, make_sft_dataset
from tests.support.folders import SHORT, data_file, flags, lines, model_folder, rows
from tests.support.marks import e2e
from tests.support.tiny import chat_tokenizer, tokenizer

THOUGHTS = {"thought": lambda n: f"the cat is {n}" if n else None}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def data(tmp_path):
    return data_file(tmp_path / "shown.jsonl", rows(6, answer=lambda n: str(10**n), **THOUGHTS))


@pytest.fixture
def sft(network, data, tmp_path, capsys):
    """Fine-tunes into a folder of that name; returns the run folder and its JSON."""

    def run(name="run", status=0, **options):
        chosen = {"task": "jsonl", "data": data, "model": network, "output": tmp_path / name, "prompts_per_step": 2}
        capsys.readouterr()
        assert main(["sft", "--json", "--quiet", *flags(**chosen | {"steps": 2, "lr": 1e-2} | options)]) == status
        return RunFolder(tmp_path / name), json.loads(capsys.readouterr().out)

    return run


def same(left, right):
    left, right = (load_file(run.final / "model.safetensors") for run in (left, right))
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# --- what is shown


@pytest.mark.parametrize("words", [tokenizer(), tokenizer(False), chat_tokenizer()])
def test_a_completion_is_laid_out_in_the_ids_of_training(words):
    """Prompt and answer as the trainer encodes them, between them the closing that is forced when thinking is cut."""
    prompts = ["What is 1? ", "And 2? "]
    if words.chat_template:
        prompts = [[{"role": "user", "content": text}] for text in prompts]
    tokens = TokenFormat(Format.of(words), words)
    args = QreditConfig(per_device_train_batch_size=2, num_generations=2, max_completion_length=8, use_cpu=True)
    asked = Dataset.from_dict({"prompt": prompts, "answer": ["Paris", "two"]})
    trained, _ = encode_datasets(asked, None, args, tokens, None, {})
    shown = encode_demonstrations(prompts, ["Paris", "two"], ["", "the cat"], RowNames.of(None, 2, "data"), tokens, {})
    for one, row, thought in zip(shown, trained, ([], words("the cat").input_ids), strict=True):
        assert list(one.prompt_ids) == row["prompt_ids"]
        assert list(one.completion_ids) == [*thought, *tokens.close_ids, *row["answer_ids"]]
        assert one.completion_mask == [False] * len(one.prompt_ids) + [True] * len(one.completion_ids)
        assert one.completion_ids[-len(tokens.end_ids) :] == tuple(tokens.end_ids)


def mean_loss(network, shown, counted):
    """The mean of -log p over the tokens that `counted` names, one row at a time."""
    sums, count = 0.0, 0
    for one in shown:
        ids = torch.tensor([one.ids])
        logp = network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        chosen = torch.tensor(counted(one)[1:])
        sums, count = sums - logp[chosen].sum(), count + int(chosen.sum())
    return sums / count


@pytest.mark.parametrize(("all_count", "column"), [(False, None), (False, "thought"), (True, "thought")])
def test_loss_and_step_are_those_of_the_completion_tokens(sft, network, data, monkeypatch, column, all_count):
    """One SGD step on all rows, two at a time: the mean runs over the step's tokens, not over rows or micro-batches."""
    whole = Demonstration.completion_mask
    if all_count:
        monkeypatch.setattr(Demonstration, "completion_mask", property(lambda one: [True] * len(one.ids)))
    more = {"rationale_column": column} if column else {}
    run, _ = sft(steps=1, prompts_per_step=6, prompts_per_forward=2, optim="sgd", max_grad_norm=0, lr=0.5, **more)
    words = tokenizer()
    records = lines(data)
    shown = encode_demonstrations(
        [row["prompt"] for row in records],
        [row["answer"] for row in records],
        [(column and row["thought"]) or "" for row in records],
        RowNames.of(None, 6, "data"),
        TokenFormat(Format.of(words), words),
        {},
    )
    plain = AutoModelForCausalLM.from_pretrained(network, dtype=torch.float32)
    loss = mean_loss(plain, shown, whole.fget)
    loss.backward()
    with torch.no_grad():
        moved = {name: value - 0.5 * value.grad for name, value in plain.named_parameters()}
    found = load_file(run.final / "model.safetensors")
    equal = [torch.allclose(found[name], value, atol=1e-6) for name, value in moved.items() if name in found]
    assert equal
    (told,) = [line["loss"] for line in lines(run.metrics) if "loss" in line]
    if all_count:
        assert not all(equal)
        assert abs(told - loss.item()) > 1e-2
    else:
        assert all(equal)
        assert told == pytest.approx(loss.item(), abs=1e-5)


def test_labels_are_ids_where_tokens_count():
    made = make_sft_dataset([Demonstration((5, 6), (7, 8, 9)), Demonstration((1,), (2,))])
    assert made["input_ids"][:] == [[5, 6, 7, 8, 9], [1, 2]]
    assert made["labels"][:] == [[IGNORED_LABEL, IGNORED_LABEL, 7, 8, 9], [IGNORED_LABEL, 2]]


def test_every_option_of_training_is_shared_or_of_rollouts():
    rollouts = {"objective", "aliases", "q", "m", "rows_per_forward", "keep", "probe", "guard", "keep_rollouts"}
    rollouts |= {
        "curriculum",
        "field",
        "env",
        "tools",
        "max_turns",
        "observation_budget",
        "episode_budget",
        "tool_seconds",
        "branching",
        "drawing",
        "replay",
        "shrink",
        "perturb",
    }
    assert {*SHARED_WITH_TRAIN} | rollouts | {"training"} == {field.name for field in fields(TrainOptions)}
    assert not {*SHARED_WITH_TRAIN} & rollouts


# --- which tokens count


def test_entropy_sft_keeps_what_is_more_wrong_than_unsure():
    """CE (.1, 2, 3), H (.2, 2.5, .5), gamma .8: D is (-.06, 0, 2.6). At least one is kept; the earlier among equals."""
    found = torch.tensor([0.1, 2.0, 3.0]), torch.tensor([0.2, 2.5, 0.5])
    kept = {keep: entropy_sft(keep=keep, gamma=0.8).choose(*found).tolist() for keep in (1.0, 0.8, 0.5, 0.01)}
    assert kept == {1.0: [True] * 3, 0.8: [False, True, True], 0.5: [False, False, True], 0.01: [False, False, True]}
    assert entropy_sft(0.8, gamma=10.0).choose(*found).tolist() == [True, False, True]
    assert entropy_sft(0.5).choose(torch.ones(4), torch.ones(4)).tolist() == [True, True, False, False]


def test_a_step_learns_from_tokens_of_the_whole_step(sft, network, data):
    """One SGD step over three micro-batches: the tokens are chosen among all of them, whatever stands beside a row."""
    rule = entropy_sft(keep=0.5, gamma=0.8)
    common = {"steps": 1, "prompts_per_step": 6, "optim": "sgd", "max_grad_norm": 0, "lr": 0.5, "keep_tokens": rule}
    run, _ = sft("small", prompts_per_forward=2, **common)
    words, records = tokenizer(), lines(data)
    texts = [[row[name] for row in records] for name in ("prompt", "answer")]
    shown = encode_demonstrations(
        *texts, [""] * 6, RowNames.of(None, 6, "data"), TokenFormat(Format.of(words), words), {}
    )
    plain = AutoModelForCausalLM.from_pretrained(network, dtype=torch.float32)
    logs = [plain(torch.tensor([one.ids])).logits[0, len(one.prompt_ids) - 1 : -1].log_softmax(-1) for one in shown]
    logp = torch.cat([log[range(len(log)), one.completion_ids] for log, one in zip(logs, shown, strict=True)])
    entropy = torch.cat([-(log.exp() * log).sum(-1) for log in logs])
    worth = -logp - 0.8 * entropy
    loss = -logp[worth.argsort(descending=True)[: len(worth) // 2]].mean()
    loss.backward()
    with torch.no_grad():
        moved = {name: value - 0.5 * value.grad for name, value in plain.named_parameters()}
    found = load_file(run.final / "model.safetensors")
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in moved.items() if name in found)
    (told,) = [line["loss"] for line in lines(run.metrics) if "loss" in line]
    assert told == pytest.approx(loss.item(), abs=1e-5)
    assert json.loads(run.record.read_text())["objective"] == f"sft, tokens kept by {rule}"


# --- what is learned


def evaluated(capsys, *words):
    capsys.readouterr()
    assert main(["eval", "--json", "--quiet", "--k", "2", *words]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]["p@1"]["value"]


@pytest.mark.e2e
def test_answers_that_were_shown_are_given(tmp_path, capsys):
    """Without rationales a pocket model closes its thinking at once, and knows the few answers by heart."""
    asked = ["--split", "train", "--limit", "4"]
    assert evaluated(capsys, *asked) == 0
    options = {"steps": 60, "subset": 4, "prompts_per_step": 4, "lr": 1e-3, "output": tmp_path / "run"}
    assert main(["sft", "--quiet", *flags(**options)]) == 0
    assert evaluated(capsys, "--model", str(tmp_path / "run"), *asked) > 0.9


@pytest.mark.e2e
def test_rationales_once_shown_are_thought_on_new_questions(tmp_path, capsys):
    options = {"steps": 12, "subset": 96, "output": tmp_path / "run", "rationales": True}
    assert main(["sft", "--quiet", *flags(**options)]) == 0
    assert evaluated(capsys, "--model", str(tmp_path / "run"), "--limit", "4") > 0.5


@pytest.mark.e2e
def test_training_goes_on_from_it(sft, data, tmp_path):
    run, _ = sft(eval_every=2, eval_questions=2, eval_k=2, max_completion_length=8, answer_budget=3)
    assert [set(line) >= {"p@1", "p@2", "m@2"} for line in lines(run.validation)] == [True]
    chosen = {"task": "jsonl", "data": data, "model": run.final, "output": tmp_path / "next", **SHORT, "steps": 1}
    assert main(["train", "--quiet", *flags(**chosen)]) == 0
    assert yaml.safe_load((tmp_path / "next" / "config.yaml").read_text())["model"] == str(run.final)


@pytest.mark.e2e
def test_adapters_are_trained_and_merged(sft, network):
    run, _ = sft("adapters", lora=True)
    assert (run.final / "adapter_config.json").is_file()
    run, _ = sft("merged", lora=True, merge_lora=True)
    before, after = (load_file(folder / "model.safetensors") for folder in (network, run.final))
    assert any(not torch.equal(before[name], after[name]) for name in before)


# --- runs resume, and are told


def interrupt(monkeypatch, step, act):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == step:
            act()

    monkeypatch.setattr(MetricsWriter, "on_step_begin", on_step_begin)


def raise_interrupt():
    raise KeyboardInterrupt


def send_signal():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.parametrize(("step", "act", "save_every"), [(3, raise_interrupt, 2), e2e(2, send_signal, 100)])
def test_a_resumed_run_ends_as_an_unbroken_one(sft, monkeypatch, capsys, step, act, save_every):
    """Five steps of two of six rows: the second epoch, shuffled anew, is cut. A signal saves the step it came in."""
    options = {"steps": 5, "save_every": save_every, "rationale_column": "thought", "seed": 3}
    whole, _ = sft("whole", **options)
    with monkeypatch.context() as patched:
        interrupt(patched, step, act)
        cut, _ = sft("cut", status=130, **options)
    assert not cut.final.exists()
    assert main(["sft", "--quiet", "--resume", "--output", str(cut.path)]) == 0
    assert same(cut, whole)
    steps = [[line for line in lines(run.metrics) if "loss" in line] for run in (cut, whole)]
    told = [[{name: value for name, value in line.items() if name != "time/update"} for line in one] for one in steps]
    assert told[0] == told[1]
    assert [line["step"] for line in told[0]] == [1, 2, 3, 4, 5]


def test_a_run_is_recorded_repeated_and_told(sft, data, network, tmp_path):
    run, told = sft(rationale_column="thought", steps=12, save_every=0)
    kept = yaml.safe_load(run.config.read_text())
    assert (kept["rationale_column"], kept["data"], kept["model"]) == ("thought", str(data), str(network))
    assert not {"objective", "m", "q"} & kept.keys()
    record = json.loads(run.record.read_text())
    assert (record["objective"], record["without_rationale"], record["train_prompts"]) == ("sft with rationales", 1, 6)
    assert told["completion_tokens"] == record["completion_tokens"] > 6 * 4
    assert main(["sft", "--quiet", "--config", str(run.config), "--output", str(tmp_path / "again")]) == 0
    assert same(run, RunFolder(tmp_path / "again"))
    said = describe_run(collect_runs([run.path])[0])
    assert said[0] == "sft with rationales on jsonl (cold prompts): 12 steps of 2 prompts."
    assert said[1].startswith("Loss of the demonstrations, in nats a token, went from ")
    assert "sft with rationales" in (run.final / "README.md").read_text()


# --- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rationale_column": "thoughts"}, "did you mean 'thought'? Choices: answer, blank, closed, "),
        ({"rationale_column": "number"}, "shown.jsonl, record 2: field 'number' must be text, not 1"),
        ({"rationale_column": "closed"}, "id '2': rationale 'a</think>b' spells the control token '</think>'"),
        ({"rationales": True}, "for task jsonl name a column: rationale_column"),
        ({"answer_column": "thought"}, "record 1: field 'thought' is null"),
        (
            {"answer_column": "blank"},
            "record 4: field 'blank' must be text, a number or one assistant message, not ' '",
        ),
        ({"m": 4}, "unknown flag '--m'"),
        ({"keep_tokens": "entropy_stf()"}, "unknown rule of tokens 'entropy_stf'; did you mean 'entropy_sft'?"),
        ({"keep_tokens": "entropy_sft(keep=0)"}, "keep of entropy_sft must be above 0"),
        ({"objective": "grpo()"}, "unknown flag '--objective'"),
        ({"packing": True}, "unknown flag '--packing'"),
        ({"prompts_per_step": 7}, "6 prompts, but one step needs 7"),
        ({"num_train_epochs": 2}, "num_train_epochs is called steps here"),
        ({"model": "nowhere/at/all"}, "no model folder nowhere/at/all"),
    ],
)
def test_what_cannot_be_used_is_said_before_any_step(options, words, sft, tmp_path, network):
    more = {"number": lambda n: 1 if n == 1 else "one", "blank": lambda n: " " if n == 3 else "x", **THOUGHTS}
    given = rows(6, closed=lambda n: "a</think>b" if n == 1 else "a", **more)
    run, told = sft(status=2, data=data_file(tmp_path / "shown.jsonl", given), **options)
    assert words in told["error"]
    assert not run.path.exists()


def test_rationales_are_asked_of_tasks_that_have_them(capsys):
    assert main(["sft", "--rationale-column", "thought"]) == 2
    assert "rationale_column names a column of task jsonl, not of pocket-hotpot" in capsys.readouterr().err


def test_what_does_not_fit_the_context_is_counted_or_left_out(sft, tmp_path):
    short = model_folder(tmp_path / "short", max_position_embeddings=24)
    data = data_file(tmp_path / "long.jsonl", rows(6, prompt=lambda n: f"What is {n}? " * (1 + 9 * (n == 2))))
    _, told = sft(status=2, data=data, model=short)
    assert "1 of 6 prompts with their completions do not fit the context of 24 tokens (ids '3'; " in told["error"]
    _, told = sft(data=data, model=short, skip_long=True)
    assert (told["train_examples"], told["train_prompts"]) == (6, 5)


def test_each_command_resumes_its_own_runs(sft, data, network, tmp_path, capsys):
    run, _ = sft()
    assert main(["train", "--resume", "--output", str(run.path)]) == 2
    assert f"is one of `qredit sft`; go on with it: qredit sft --resume --output {run.path}" in capsys.readouterr().err
    other = tmp_path / "trained"
    other.mkdir()
    (other / "config.yaml").write_text("objective: grpo()\n")
    assert main(["sft", "--resume", "--output", str(other)]) == 2
    assert "is one of `qredit train`" in capsys.readouterr().err
