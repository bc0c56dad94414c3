"""The command line: its flags and files, its JSON, and the one clear line that anything unusable gets."""

import dataclasses
import io
import json
import shutil
import sys

import pytest
import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM, Qwen3Model

import qredit.rewards as rewards
from qredit.cli import main
from qredit.cli.main import COMMANDS
from qredit.objectives import REGISTRY as OBJECTIVES
from qredit.objectives.parsing import STAGES
from qredit.rewards.answer_scorer import Scorer
from qredit.runs.folder import RunFolder
from qredit.runs.load import load_model
from qredit.runs.options import TrainOptions
from qredit.tasks import REGISTRY as TASKS
from qredit.trl import QreditTrainer
from tests.support.folders import SHORT, data_file, flags, lines, model_folder, rows

HOSTILE = "[bold]loud[/bold] :smile: \x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnorw\r end"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def no_compute(monkeypatch):
    """The model's forward must not run."""
    monkeypatch.setattr(Qwen3Model, "forward", lambda *a, **k: pytest.fail("the model was run"))


@pytest.fixture
def command(network, tmp_path, capsys):
    """Runs a command; returns status, standard output and standard error. `train` and `eval` get a tiny set-up."""
    data = data_file(tmp_path / "train.jsonl")
    setup = {
        "train": {"task": "jsonl", "data": data, "model": network, "output": tmp_path / "run", **SHORT},
        "eval": {"task": "jsonl", "data": data, "model": network, "split": "train", "k": 2}
        | {name: SHORT[name] for name in ("max_completion_length", "answer_budget")},
    }

    def run(name, *words, without=(), **options):
        chosen = setup.get(name, {}) | options
        argv = flags(**{key: value for key, value in chosen.items() if key not in without})
        capsys.readouterr()
        status = main([name, *argv, *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def refused(command, no_compute, tmp_path):
    """Runs a command that must be refused before compute, with nothing written; returns the one line it says."""

    def run(name, *words, **options):
        before = tree(tmp_path)
        status, out, err = command(name, *words, **options)
        assert (status, out) == (2, "")
        assert err.startswith("qredit: ")
        assert err.count("\n") == 1
        assert tree(tmp_path) == before
        return err

    return run


def tree(folder):
    """Every path below a folder, with the contents of files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def yaml_file(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- help and names


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: qredit {name}" in shown
    assert "--json" in shown
    assert "--quiet" in shown


def test_help_of_train_names_every_option_once(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(TrainOptions):
        assert field.name == "training" or f"\n  --{field.name.replace('_', '-')} " in shown


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_subcommand_the_subcommands_are_listed(words, capsys):
    assert main(words) == 0
    assert set(COMMANDS) <= set(capsys.readouterr().out.split())


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["trian"],
            "unknown subcommand 'trian'; did you mean 'train'? Choices: bench, compare, demo, dpo, eval, intervene,",
        ),
        (["train", "--promts-per-step", "3"], "unknown flag '--promts-per-step'; did you mean '--prompts-per-step'?"),
        (["train", "--max-grad-nrom", "3"], "unknown flag '--max-grad-nrom'; did you mean '--max-grad-norm'?"),
        (["train", "--max-grad-norm"], "flag --max-grad-norm needs a value"),
        (["train", "-q", "1"], "unknown flag '-q'"),
        (["train", "garl"], "unexpected argument 'garl'"),
        (["train", "--m"], "--m"),
        (["eval", "--steps", "3"], "unknown flag '--steps'"),
        (["tasks", "--jsno"], "unknown flag '--jsno'; did you mean '--json'?"),
        (["train", "--task", "jsnol"], "unknown task 'jsnol'; did you mean 'jsonl'?"),
        (["train", "--objective", "gral"], "unknown objective 'gral'; did you mean 'garl'?"),
        (["train", "--objective", "gral(q=1)"], "unknown objective or stage 'gral'; did you mean 'garl'?"),
        (["objectives", "papt"], "unknown objective or part 'papt'; did you mean 'paft'?"),
        (["demo", "--task", "finqa"], "the demo runs on pocket tasks, got finqa"),
    ],
)
def test_names_that_do_not_exist_are_refused_with_nearest_one(argv, words, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1


# --- JSON


@pytest.mark.parametrize(("name", "key"), [("objectives", "objectives"), ("tasks", "tasks")])
def test_lists_hold_everything(name, key, command):
    status, out, err = command(name, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert [entry["name"] for entry in found[key]] == (sorted(OBJECTIVES) if key == "objectives" else list(TASKS))
    assert all(entry["summary"] for entry in found[key])


def test_the_list_of_objectives_holds_the_stages(command):
    _, out, _ = command("objectives", "--json")
    assert {entry["name"] for entry in json.loads(out)["stages"]} == set(STAGES)


@pytest.mark.parametrize("name", [*OBJECTIVES, *STAGES])
def test_every_objective_and_stage_can_be_explained(name, command):
    status, out, _ = command("objectives", name)
    assert status == 0
    assert name in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("grpo", []),
        ("paft", ["scoring pass over all rows"]),
        ("spine", ["second model", "over the vocabulary", "whole optimiser step"]),
        ("spine_v1", ["second model"]),
        ("rlpr", ["second model", "whole generation"]),
        ("opsd", ["behind the prompt that shows the answer"]),
        ("attention_credit", ["attention maps"]),
        ("delta", ["last layer's state", "whole generation"]),
        ("nthr", ["prediction errors"]),
        ("siren", ["sort of the vocabulary", "whole optimiser step"]),
    ],
)
def test_an_objective_says_what_it_costs(name, words, command):
    told = json.loads(command("objectives", name, "--json")[1])["cost"]
    assert len(told) == len(words)
    assert all(word in cost for word, cost in zip(words, told, strict=True))


@pytest.mark.parametrize("name", TASKS)
def test_the_table_of_tasks_names_them(name, command):
    assert name in command("tasks")[1]


def test_shared_flags_may_stand_before_the_subcommand(capsys):
    assert main(["--json", "tasks"]) == 0
    assert "tasks" in json.loads(capsys.readouterr().out)


def test_json_of_train_and_eval_is_one_object(command, tmp_path):
    status, out, _ = command("train", "--json")
    trained = json.loads(out)
    assert status == 0
    assert trained["final"] == str(tmp_path / "run" / "final")
    assert (trained["steps"], trained["train_examples"], trained["objective"]) == (2, 6, "garl(q=0.75)")
    status, out, _ = command("eval", "--json")
    assert status == 0
    metrics = json.loads(out)["metrics"]
    assert {"p@1", "p@2", "m@2", "exact_match", "f1", "substring"} <= metrics.keys()
    assert all(0 <= found["low"] <= found["value"] <= found["high"] <= 1 for found in metrics.values())


@pytest.mark.parametrize(
    "argv", [["trian"], ["train", "--task", "jsnol"], ["train", "--nonsense"], ["eval", "--k", "0"]]
)
def test_an_error_is_one_json_object_too(argv, capsys):
    assert main([*argv, "--json"]) == 2
    captured = capsys.readouterr()
    (error,) = json.loads(captured.out).values()
    assert captured.err == f"qredit: {error}\n"
    assert set(json.loads(captured.out)) == {"error"}


def test_unforeseen_error_is_json_too_and_keeps_its_traceback(command, monkeypatch):
    monkeypatch.setattr("qredit.cli.tasks_command.REGISTRY", {"broken": None})
    status, out, err = command("tasks", "--json")
    assert status == 1
    assert json.loads(out)["error"].startswith("AttributeError: ")
    assert "Traceback" in err


def test_an_interrupt_ends_with_status_130(command, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(QreditTrainer, "_new_generation", interrupt)
    status, out, err = command("train", "--json", "--quiet")
    assert status == 130
    assert json.loads(out) == {"error": "interrupted"}
    assert err.startswith(
        "qredit: interrupted; nothing saved yet (0 of 2 steps lost); go on with it: qredit train --resume --output "
    )


def test_standard_output_holds_one_json_object_and_nothing_else(network, tmp_path, monkeypatch, capfd):
    """Also when a library prints, from Python or from below it."""
    data = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(2)))
    (tmp_path / "noisy.py").write_text(
        "import os\nfrom qredit.objectives import garl\n"
        "def loud():\n    print('noise')\n    os.system('echo noise from below')\n    return garl(q=0.5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    argv = flags(task="jsonl", data=data, model=network, output=tmp_path / "run", objective="noisy.loud()", **SHORT)
    assert main(["train", "--json", "--quiet", "--skip-long", *argv]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["steps"] == 2
    assert out.count("\n") == 1
    assert "noise from below" in err
    assert "left out" not in err


def test_progress_is_on_standard_error_and_quiet_silences_it(command, tmp_path):
    _, out, err = command("train")
    assert "garl(q=0.75)" in err
    assert out.splitlines()[-1] == f"final model: {tmp_path / 'run' / 'final'}"
    status, out, err = command("train", "--quiet", output=tmp_path / "second")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"final model: {tmp_path / 'second' / 'final'}"


# --- YAML and flags


def test_options_come_from_yaml_and_flags_win(command, tmp_path):
    path = yaml_file(tmp_path, "steps: 1\nobjective: paft(q=0.5)\nprompts-per-step: 3\nmax_grad_norm: 2e-1\n")
    options = {"config": path, "seed": 4, "prompts_per_step": 2}
    status, out, _ = command("train", "--json", without=("steps",), **options)
    assert status == 0
    assert json.loads(out)["objective"] == "paft(q=0.5)"
    assert json.loads(out)["steps"] == 1
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "prompts_per_step: 2\n" in kept
    assert "seed: 4\n" in kept
    assert "max_grad_norm: 0.2\n" in kept


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stpes: 3\n", "unknown key 'stpes' in {file}; did you mean 'steps'?"),
        ("max_grad_nrom: 3\n", "unknown key 'max_grad_nrom' in {file}; did you mean 'max_grad_norm'?"),
        ("steps: 3\nq: [1\n", "{file}, line 3: not YAML"),
        ("steps: 3\n\tq: 1\n", "{file}, line 2: not YAML"),
        ("- steps\n", "{file}: keys and values were expected, not list"),
        ("", "{file}: keys and values were expected, not NoneType"),
        ("seed: many\n", "seed must be a whole number, got 'many'"),
        ("seed: 1.5\n", "seed must be a whole number, got 1.5"),
        ("seed: .inf\n", "seed must be a whole number, got inf"),
        ("seed: [1, 2]\n", "seed must be a whole number, got [1, 2]"),
        ("seed: true\n", "seed must be a whole number, got True"),
        ("q: much\n", "q must be a number or auto, got 'much'"),
        ("lora: perhaps\n", "lora must be true or false, got 'perhaps'"),
        ("seed:\n", "seed needs a value"),
        ("subset: [1]\n", "subset must be text, got [1]"),
        ("thinking_opening: yes\n", "thinking_opening must be text, got True"),
        ("style: warn\n", "style must be cold or warm, got 'warn'; did you mean 'warm'?"),
        ("style: [cold]\n", "style must be cold or warm, got ['cold']"),
        ("max_grad_norm: [1]\n", "max_grad_norm must be a number, got [1]"),
        ("training: 3\n", "unknown key 'training'"),
        ("training: {nonsense: 3}\n", "unknown key 'training'"),
        ("3: 4\n", "unknown key '3'"),
    ],
)
def test_a_config_file_that_cannot_be_used(refused, tmp_path, text, words):
    path = yaml_file(tmp_path, text)
    assert words.format(file=path) in refused("train", config=path)


def test_a_config_file_that_is_not_text(refused, tmp_path):
    path = tmp_path / "options.yaml"
    path.write_bytes(b"seed: 3\n\xff\xfe")
    assert f"{path}: not UTF-8 text" in refused("train", config=path)


def test_a_missing_config_file(refused, tmp_path):
    assert f"no config file {tmp_path / 'none.yaml'}" in refused("train", config=tmp_path / "none.yaml")


# --- values that cannot be used


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"q": 1.5}, "q must be a number between 0 and 1, or auto, got 1.5"),
        ({"q": -0.1}, "q must be a number between 0 and 1, or auto, got -0.1"),
        ({"q": "nan"}, "q must be a number between 0 and 1, or auto, got nan"),
        ({"objective": "garl(q=2)"}, "q must be a number between 0 and 1, got 2"),
        ({"objective": "garl(q=0.5)", "q": 0.5}, "q=0.5 stands beside the q inside the objective's text 'garl(q=0.5)'"),
        ({"objective": "garl (q=0.5)", "q": 0.5}, "stands beside the q inside"),
        ({"objective": "grpo", "q": 0.5}, "objective grpo takes no q, got q=0.5"),
        ({"objective": "garl("}, "objective 'garl(' cannot be read"),
        ({"m": 1}, "m, the rollouts per prompt, must be at least 2, got 1"),
        ({"m": 0}, "m, the rollouts per prompt, must be at least 2, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": "inf"}, "steps must be a whole number, got 'inf'"),
        ({"prompts_per_step": 4, "prompts_per_forward": 3}, "prompts_per_forward=3 must divide the 4 prompts"),
        ({"prompts_per_step": 4, "prompts_per_forward": 3}, "[1, 2, 4]"),
        ({"prompts_per_forward": 0}, "prompts_per_forward must be at least 1, got 0"),
        ({"rows_per_forward": 0}, "rows_per_forward must be at least 1, got 0"),
        ({"per_device_train_batch_size": 3}, "=3 would split a group of num_generations=2 rollouts"),
        ({"per_device_train_batch_size": 3}, "such as 2 or 4"),
        ({"max_completion_length": 0}, "max_completion_length must be at least 1, got 0"),
        ({"answer_budget": 0}, "answer_budget must be at least 1, got 0"),
        ({"answer_budget": 9}, "max_completion_length=8 is less than answer_budget=9"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"eval_every": -1}, "eval_every must be at least 0, got -1"),
        ({"save_every": -1}, "save_every must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, "seed must be less than 4294967296, got 4294967296"),
        ({"lr": 0}, "lr must lie between 0 and 1, got 0.0"),
        ({"lr": "nan"}, "lr must lie between 0 and 1, got nan"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"style": "warn"}, "did you mean 'warm'?"),
        ({"dtype": "float16"}, "dtype must be float32 or bfloat16, got 'float16'"),
        ({"subset": "half"}, "subset must be a number of examples, at least 1, or 'paper', got 'half'"),
        ({"subset": "²"}, "subset must be a number of examples, at least 1, or 'paper'"),
        ({"subset": "paper"}, "no published size for task jsonl"),
        ({"reward": "exact_mach"}, "unknown reward 'exact_mach'; did you mean 'exact_match'"),
        ({"coldness": 3}, "coldness chooses a pocket-dial model"),
        ({"merge_lora": True}, "merge_lora needs lora"),
        ({"q": "aut"}, "q must be a number or auto, got 'aut'"),
        ({"objective": "grpo", "q": "auto"}, "objective grpo takes no q, got q=auto"),
        ({"guard": "rollback"}, "did you mean 'roll_back'"),
        ({"guard": "roll_back", "save_every": 0}, "guard=roll_back needs checkpoints to return to"),
        ({"guard": "paft", "objective": "grpo"}, "guard=paft takes over from GARL"),
        ({"chat": True}, "the tokenizer has no chat template"),
        ({"loss_type": "grpo"}, "loss_type='grpo' belongs to the objective: choose the objective"),
        ({"beta": 0.1}, "beta=0.1 belongs to the objective"),
        ({"scale_rewards": "none"}, "belongs to the objective"),
        ({"use_vllm": True}, "use_vllm needs vllm"),
        ({"temperature": 0.5}, "temperature=0.5 would draw them from another distribution"),
        ({"max_grad_norm": "steep"}, "max_grad_norm must be a number, got 'steep'"),
        ({"num_iterations": 1.5}, "num_iterations must be a whole number, got '1.5'"),
        ({"lr_scheduler_type": "constnat"}, "constnat"),
        ({"report_to": "tensorboadr"}, "tensorboadr is not supported"),
        ({"eval_strategy": "steps", "eval_steps": 2}, "eval"),
        ({"max_steps": 3}, "max_steps is called steps here"),
        ({"learning_rate": 3}, "learning_rate is called lr here"),
        ({"num_generations": 4}, "num_generations is called m here"),
        ({"num_train_epochs": 4}, "num_train_epochs is called steps here"),
        ({"thinking_closing": ""}, "the closing must not be empty"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used(refused, options, words):
    assert words in refused("train", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"temperature": -1}, "temperature must be 0 or more, got -1.0"),
        ({"temperature": "nan"}, "temperature must be 0 or more, got nan"),
        ({"temperature": "inf"}, "temperature must be 0 or more, got inf"),
        ({"metric": "exact_mach"}, "unknown reward 'exact_mach'; did you mean 'exact_match'"),
        ({"split": "dev"}, "split must be train or validation or test, got 'dev'"),
        ({"task": "jsnol"}, "did you mean 'jsonl'?"),
        ({"answer_budget": 9}, "max_completion_length=8 is less than answer_budget=9"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"select": "gen_select()"}, "gen_select needs a judge"),
        ({"select": "majorty()"}, "did you mean 'majority'"),
        ({"select": "best_of(mean_logp())", "k": 1}, "best_of needs k of at least 2, got 1"),
        ({"select": "pairwise(local(model='./gone'))"}, "no model folder gone"),
        ({"decode": "budget_focring()"}, "did you mean 'budget_forcing'"),
        ({"decode": "budget_forcing()", "against": "pocket"}, "leave out against"),
        ({"decode": "begin_with('[Easy]')", "max_completion_length": 4}, "and thinking may take"),
        ({"decode": "by_difficulty(pilot=2, alpha=0.7, beta=0.3, gamma=0.3)"}, "needs k of at least 3, got 2"),
    ],
)
def test_a_value_that_an_evaluation_cannot_use(refused, options, words):
    assert words in refused("eval", **options)


# --- data that cannot be used


@pytest.mark.parametrize("name", ["train", "eval"])
@pytest.mark.parametrize(
    ("records", "options", "words"),
    [
        (rows(answer=None, anwser=str), {}, "record 1: no field 'answer'; did you mean 'anwser'? There are: anwser"),
        (rows(), {"answer_column": "anwser"}, "no field 'anwser'; did you mean 'answer'?"),
        (rows(prompt=None, topic=str), {}, "record 1: no field 'prompt'; There are: answer, topic; name one"),
        (rows(answer=lambda n: "" if n == 4 else "1"), {}, "must be text, a number or one assistant message, not ''"),
        (rows(answer=lambda n: " \n" if n == 4 else "1"), {}, "record 5: field 'answer' must be text, a number or"),
        (rows(answer=lambda n: None), {}, "record 1: field 'answer' is null"),
        (rows(id=lambda n: "same"), {}, "ids occur more than once with different rows, first 'same'"),
        ([], {}, "empty, there are no records in it"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used(refused, tmp_path, name, records, options, words):
    assert words in refused(name, data=data_file(tmp_path / "train.jsonl", records), **options)


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_missing_file_is_named(refused, tmp_path, name):
    assert f"no file or folder '{tmp_path}/none.jsonl'" in refused(name, data=tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", ["train", "eval"])
def test_no_data_at_all(refused, name):
    assert "no data given" in refused(name, without=("data",))


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_corrupt_line_is_named_by_its_number(refused, tmp_path, name):
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}\n\n{"prompt": "a", "ans\n')
    assert f"{path}, line 3: not JSON" in refused(name, data=path)


def test_an_answer_column_of_a_task_that_has_its_own(refused):
    assert "answer_column names a column of task jsonl" in refused(
        "train", task="gsm8k", answer_column="solution", without=("data",)
    )


def test_answer_that_does_not_join_at_seam_is_named_by_its_row(refused, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(answer=lambda n: "the" if n == 4 else "Paris"))
    said = refused("train", data=path, thinking_closing="so ")
    assert "id '5'" in said
    assert "answer 'the' does not join at the seam" in said
    assert "set answer_seam" in said


def test_prompts_that_do_not_fit_are_named_and_counted(refused, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(2, 4)))
    said = refused("train", data=path)
    assert "2 of 6 prompts do not fit" in said
    assert "the context of 256 tokens less 5 for thinking and 3 for the answer" in said
    assert "'3'" in said
    assert "'5'" in said
    assert "skip_long" in said


def long_in(*numbers):
    return lambda n: "the cat " * 150 if n in numbers else f"What is {n}? "


def test_prompts_that_do_not_fit_an_evaluation_are_refused(refused, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(2, 4)))
    assert "jsonl train: 2 of 6 prompts do not fit" in refused("eval", data=path)


def test_prompts_that_do_not_fit_are_left_out_with_a_count(command, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(2, 4)))
    status, out, _ = command("eval", "--json", "--skip-long", data=path)
    assert status == 0
    assert (json.loads(out)["questions"], json.loads(out)["skipped"]) == (4, 2)
    assert "2 prompts were too long for the context and are left out" in command("eval", "--skip-long", data=path)[1]


def test_a_run_whose_prompts_all_do_not_fit_is_refused_for_that(refused, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(*range(6))))
    said = refused("train", "--skip-long", data=path)
    assert "6 of 6 prompts do not fit" in said
    assert "skip_long" not in said


def test_data_is_looked_at_before_a_model_that_must_be_fetched(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *a, **k: pytest.fail("the hub was asked"))
    for name in ("train", "eval", "probe"):
        assert "nowhere.jsonl" in refused(name, task="jsonl", data=tmp_path / "nowhere.jsonl", model="some/model")


def test_a_run_folder_is_not_a_model(refused, tmp_path):
    run = tmp_path / "mine"
    run.mkdir()
    (run / "config.yaml").write_text("task: jsonl\n")
    assert f"go on with it: qredit train --resume --output {run}" in refused("train", model=run)
    (run / "final").mkdir()
    assert f"its model is {run / 'final'}" in refused("train", model=run)


def test_a_misspelt_run_is_not_looked_for_on_the_hub(refused, tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").write_text("task: jsonl\n")
    monkeypatch.chdir(tmp_path)
    assert "no model folder runs/mein" in refused("eval", model="runs/mein")


@pytest.mark.parametrize("words", [("lab", "escape"), ("compare", "grpo()", "garl(q=0.5)")], ids=["lab", "compare"])
def test_an_output_that_is_a_file_is_refused_before_compute(refused, tmp_path, words):
    name, *rest = words
    (tmp_path / "taken").write_text("mine")
    assert f"{tmp_path / 'taken'} is a file; give a folder" in refused(name, *rest, output=tmp_path / "taken")


def test_a_rank_of_adapters_needs_adapters(refused):
    assert "lora_r needs lora" in refused("train", lora_r=4)


def test_a_misspelt_argument_of_an_objective_is_named(refused):
    said = refused("train", objective="garl(p=0.75)")
    assert "'p'" in said
    assert "it takes q" in said


def test_characters_that_the_terminal_does_not_know_are_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["objectives", "garl"]) == 0
    sys.stdout.flush()
    assert b"\\u" in raw.getvalue() or b"\\x" in raw.getvalue()


def test_evaluation_of_prompts_that_all_do_not_fit_is_refused(refused, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(*range(6))))
    assert "6 of 6 prompts do not fit" in refused("eval", "--skip-long", data=path)


def test_validation_prompts_that_do_not_fit_are_refused(refused, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    data_file(folder / "train.jsonl")
    data_file(folder / "validation.jsonl", rows(prompt=long_in(1)))
    assert "1 of 6 prompts do not fit" in refused("train", data=folder, eval_every=1, eval_k=2)


def test_long_prompts_can_be_dropped_with_a_count(command, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(2, 4)))
    status, out, _ = command("train", "--json", "--skip-long", data=path)
    found = json.loads(out)
    assert (status, found["train_examples"], found["train_prompts"]) == (0, 6, 4)


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_dropped_prompts_are_told(command, tmp_path, words):
    path = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(2, 4)))
    _, out, _ = command("train", "--skip-long", "--quiet", *words, data=path)
    assert "2 of 6 prompts were too long for the context and are left out\n" in out


def test_too_few_prompts_for_a_step_are_refused(refused):
    assert "has 6 prompts, but one step needs 7 different ones" in refused("train", prompts_per_step=7)


def test_dropping_long_prompts_may_leave_too_few(refused, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(prompt=long_in(2, 4)))
    said = refused("train", skip_long=True, prompts_per_step=5, data=path)
    assert "has 4 prompts, but one step needs 5" in said


# --- models that cannot be used


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_model_folder_without_weights_is_refused(refused, tmp_path, name):
    folder = model_folder(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    assert f"model folder {folder} holds no weights" in refused(name, model=folder)


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_folder_that_is_no_model_is_refused(refused, tmp_path, name):
    (tmp_path / "other").mkdir()
    assert "holds no config.json; is it a model?" in refused(name, model=tmp_path / "other")


def test_a_model_folder_that_is_not_there_is_refused(refused, tmp_path):
    assert f"no model folder {tmp_path / 'none'}" in refused("train", model=tmp_path / "none")


def test_torn_weights_are_refused(refused, tmp_path):
    folder = model_folder(tmp_path / "torn")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert f"cannot load model '{folder}'" in refused("train", model=folder)


def test_weights_that_lack_a_part_are_refused(refused, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = model_folder(tmp_path / "partial")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = refused("train", model=folder)
    assert f"model '{folder}' lacks 1 of its weights, first 'model.layers.0.mlp.up_proj.weight'" in said


def test_a_model_without_its_tokenizer_is_refused(refused, tmp_path):
    folder = model_folder(tmp_path / "mute")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert f"no tokenizer for model '{folder}'" in refused("train", model=folder)


def test_a_task_without_pocket_model_is_refused(refused):
    assert "task jsonl has no pocket model" in refused("train", without=("model",))


# --- folders


@pytest.fixture(scope="module")
def finished(network, tmp_path_factory):
    """A finished run, where `command` would not look for it."""
    folder = tmp_path_factory.mktemp("finished")
    chosen = {"task": "jsonl", "data": data_file(folder / "train.jsonl"), "model": network, **SHORT, "save_every": 1}
    assert main(["train", "--quiet", *flags(**chosen, output=folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def used(finished, tmp_path):
    """A copy of that run, where `command` trains."""
    return RunFolder(shutil.copytree(finished, tmp_path / "run"))


def test_a_used_run_folder_is_left_alone(used, refused):
    assert "is already used; add --resume to go on, or give another --output" in refused("train")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "grpo"}, "has objective='garl', not 'grpo'"),
        ({"q": 0.5}, "has q=None, not 0.5"),
        ({"m": 3}, "has m=2, not 3"),
        ({"seed": 1}, "has seed=0, not 1"),
        ({"weight_decay": 0.5}, "has weight_decay=None, not 0.5"),
    ],
)
def test_a_run_is_not_resumed_as_another_one(used, refused, options, words):
    said = refused("train", "--resume", save_every=1, **options)
    assert words in said
    assert "a resumed run may change steps, save_every, log_every, data, model only" in said


def test_a_folder_that_holds_anything_is_used(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("dear")
    assert f"run folder {tmp_path / 'run'} is already used" in refused("train")


def test_an_empty_folder_can_be_used_and_survives_a_refusal(refused, command, tmp_path):
    (tmp_path / "run").mkdir()
    refused("train", prompts_per_step=7)


def test_a_refusal_leaves_no_folder_of_the_path_behind(refused, tmp_path):
    refused("train", prompts_per_step=7, output=tmp_path / "one" / "two" / "run")


def test_a_run_folder_that_is_a_file(refused, tmp_path):
    (tmp_path / "run").write_text("dear")
    assert f"{tmp_path / 'run'} is a file; give a folder for the run" in refused("train")


@pytest.mark.parametrize("where", ["file/run", "file/deep/run"])
def test_a_folder_that_cannot_be_written(refused, tmp_path, where):
    (tmp_path / "file").write_text("dear")
    assert f"cannot write to {tmp_path / where}: Not a directory" in refused("train", output=tmp_path / where)


def test_a_folder_of_the_kernel_cannot_be_written(refused):
    assert "cannot write to /proc/qredit" in refused("train", output="/proc/qredit")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--resume"], "nothing to resume in"), (["--resume", "--dry-run"], "nothing to resume in")],
)
def test_nothing_to_resume(refused, tmp_path, words, said):
    assert f"{said} {tmp_path / 'run'}" in refused("train", *words)


def test_resume_needs_the_folder(refused):
    assert "--resume needs --output" in refused("train", "--resume", without=("output",))


def test_a_samples_file_is_not_overwritten(refused, tmp_path):
    (tmp_path / "samples.jsonl").write_text("precious")
    said = refused("eval", samples=tmp_path / "samples.jsonl")
    assert f"samples file {tmp_path / 'samples.jsonl'} exists already; give another name" in said


def test_a_samples_file_is_tried_before_sampling(refused, tmp_path):
    (tmp_path / "file").write_text("dear")
    path = tmp_path / "file" / "samples.jsonl"
    assert f"cannot write to {path}: " in refused("eval", samples=path)


def test_a_refused_evaluation_leaves_no_samples_file(refused, tmp_path):
    refused("eval", samples=tmp_path / "new" / "samples.jsonl", metric="nonsense")


def test_eval_writes_its_samples(command, tmp_path):
    path = tmp_path / "new" / "samples.jsonl"
    status, out, _ = command("eval", "--json", samples=path)
    assert (status, json.loads(out)["samples"]) == (0, str(path))
    assert {line["id"] for line in lines(path)} == set("123456")
    assert all(len(line["predictions"]) == 2 for line in lines(path))


def test_eval_shows_what_a_rule_of_selection_is_worth(command):
    status, out, _ = command("eval", "--json", select="weighted_majority(answer_logp())")
    told = json.loads(out)["selection"]["weighted_majority(answer_logp())"]
    assert (status, set(told)) == (0, {"success", "above_majority", "judge"})
    assert told["above_majority"]["low"] <= told["above_majority"]["value"] <= told["above_majority"]["high"]


def test_eval_shows_a_rule_of_drawing_beside_plain_samples(command, tmp_path, monkeypatch):
    path, loaded = tmp_path / "new" / "samples.jsonl", []
    monkeypatch.setattr("qredit.runs.load.load_model", lambda *a, **k: loaded.append(load_model(*a, **k)) or loaded[-1])
    status, out, _ = command("eval", "--json", decode="budget_forcing(text=' the')", samples=path)
    told = json.loads(out)
    assert (status, set(told["decode"]["difference"])) == (0, {"p@1", "p@2", "m@2"})
    assert told["decode"]["samples"] == str(tmp_path / "new" / "samples-decode.jsonl")
    assert 0 < told["tokens_per_sample"] <= 8
    assert len(loaded) == 1


# --- what stops a run that has begun


def test_a_reward_that_is_not_finite_names_itself_and_its_row(command, monkeypatch):
    def broken(prediction, golds):
        return float("nan") if golds[0] == "4" else 0.0

    known = {**rewards.REGISTRY, "broken": Scorer("broken", "", broken)}
    for home in ("registry", "given"):
        monkeypatch.setattr(f"qredit.rewards.{home}.REGISTRY", known)
    status, out, err = command("train", "--json", reward="broken", prompts_per_step=6)
    assert status == 2
    error = json.loads(out)["error"]
    assert "reward function 'broken' returned nan for row" in error
    assert "id '5'" in error
    assert err.endswith(f"qredit: {error}\n")


@pytest.mark.e2e
def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(command, monkeypatch, tmp_path):
    from qredit.engine.checkpoint import find_damage
    from qredit.trl import QreditTrainer

    compute = QreditTrainer._compute_loss

    def poisoned(self, network, inputs):
        loss = compute(self, network, inputs)
        return loss * float("nan") if self.state.global_step == 2 else loss

    monkeypatch.setattr(QreditTrainer, "_compute_loss", poisoned)
    status, out, _ = command("train", "--json", steps=4, save_every=1)
    assert status == 2
    assert "the loss is not finite (nan) in step 3" in json.loads(out)["error"]
    run = RunFolder(tmp_path / "run")
    assert find_damage(run.path / "checkpoint-2") is None
    assert not run.final.exists()
    kept = Qwen3ForCausalLM.from_pretrained(run.path / "checkpoint-2")
    assert all(torch.isfinite(p).all() for p in kept.parameters())
    monkeypatch.undo()
    assert command("train", "--resume", steps=4, save_every=1)[0] == 0


# --- text that others wrote


def test_a_dry_run_shows_markup_and_obeys_none(command, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(3, prompt=lambda n: f"{HOSTILE} {n}\nnext line"))
    status, out, _ = command("train", "--dry-run", data=path)
    assert status == 0
    assert "[bold]loud[/bold] :smile: \\x1b[2J\\x1b]0;owned\\x07 \\x9b31m \\u202egnorw\\r end" in out
    assert "\nnext line" in out
    assert not {character for character in out if ord(character) < 32} - {"\n"}
    assert not {"\x9b", "\u202e"} & set(out)


def test_a_dry_run_shows_answers_without_obeying_them(command, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(3, answer=lambda n: "[red]\x1b[2J"))
    _, out, _ = command("train", "--dry-run", data=path)
    appended = next(line for line in out.splitlines() if line.startswith("appended"))
    assert "'['" in appended
    assert "'\\x1b'" in appended
    assert "\x1b" not in out


def test_error_shows_control_characters_instead_of_obeying_them(refused, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(id=lambda n: "\x1b[2J\nsecond"))
    said = refused("train", data=path)
    assert "\\x1b[2J second" in said
    assert "\x1b" not in said


def test_prompts_are_shown_in_dry_run_json_as_they_are(command, tmp_path):
    path = data_file(tmp_path / "train.jsonl", rows(3, prompt=lambda n: f"{HOSTILE} {n}"))
    status, out, _ = command("train", "--dry-run", "--json", data=path)
    assert status == 0
    assert out.count("\n") == 1
    assert all(prompt.startswith(HOSTILE) for prompt in json.loads(out)["prompts"])
