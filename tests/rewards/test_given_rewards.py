"""Rewards of one's own: by import path, several with weights, over further columns, in every command that judges."""

import json
import sys

import pytest

from qredit.cli import main
from qredit.rewards import Response, parse_rewards
from qredit.tasks import Example
from qredit.utils.errors import QreditError
from tests.support.folders import SHORT, data_file, flags, lines, model_folder, rows

MODULE = """
import torch

class Judge:
    def __call__(self, completions, **columns):
        return [2.0] * len(completions)

judge = Judge()
model = torch.nn.Linear(1, 1)
SEEN = {}

def brevity(completions, **columns):
    return [-0.25] * len(completions)

def by_column(prompts, completions, completion_ids, level, solution, **columns):
    SEEN.update(columns, level=level, solution=solution, prompts=prompts, completions=completions)
    assert all(isinstance(ids, list) for ids in completion_ids)
    return [1.0 if one == "easy" else None for one in level]

async def later(completions, answer, log_extra, log_metric, trainer_state, **columns):
    log_extra("golds", list(answer))
    log_metric("half", 0.5)
    return torch.full((len(completions),), 0.5)

def exact_match(completions, **columns):
    return [0.0] * len(completions)

def broken(completions, **columns):
    return [columns["missing"]] * len(completions)

def short(completions, **columns):
    return [1.0]

def words(completions, **columns):
    return ["1"] * len(completions)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's in the working folder; its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(MODULE)
    before = list(sys.path)
    yield "my_rewards"
    sys.path[:] = before
    sys.modules.pop("my_rewards", None)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def data(tmp_path):
    columns = {"level": lambda n: "easy" if n % 2 else "hard", "solution": lambda n: [n, {"deep": n}][:1]}
    return data_file(tmp_path / "mine.jsonl", rows(**columns))


@pytest.fixture
def command(network, data, tmp_path, capsys):
    """Runs a command on the rows; returns status, what it found (JSON) and standard error."""
    asked = {"task": "jsonl", "data": data, "model": network}
    short = {name: SHORT[name] for name in ("max_completion_length", "answer_budget")}
    setup = {
        "train": asked | SHORT | {"output": tmp_path / "run"},
        "eval": asked | short | {"split": "train", "k": 2},
        "probe": asked | short | {"m": 2, "examples": 6},
    }

    def run(name, *words, **options):
        capsys.readouterr()
        status = main([name, *flags(**setup[name] | options), *words, "--json", "--quiet"])
        captured = capsys.readouterr()
        return status, json.loads(captured.out) if status == 0 and captured.out else captured.out, captured.err

    return run


def response(answer="4", completion="two and two 4", prompt="2 + 2?", **columns):
    return Response(prompt, completion, (1, 2), "two and two", answer, Example(prompt, "4", "q", columns=columns))


# --- reading


def test_a_text_names_scorers_and_functions_with_weights(mine):
    given = parse_rewards("math_equal, 0.1 * format,-2e-1*my_rewards:brevity, 0*my_rewards.later")
    assert [(reward.name, reward.weight, reward.own) for reward in given] == [
        ("math_equal", 1.0, False),
        ("format", 0.1, False),
        ("brevity", -0.2, True),
        ("later", 0.0, True),
    ]
    assert [reward.function.__name__ for reward in given] == [reward.name for reward in given]


def test_function_that_is_called_like_a_scorer_goes_by_its_path(mine):
    given = parse_rewards("exact_match, my_rewards:exact_match, my_rewards:judge")
    assert [reward.name for reward in given] == ["exact_match", "my_rewards:exact_match", "my_rewards:judge"]
    assert [reward([response()]) for reward in given] == [[1.0], [0.0], [2.0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exact_mach", "unknown reward 'exact_mach'; did you mean 'exact_match'"),
        ("exact_match, f1, exact_match", "'exact_match' is named twice"),
        (" , ", "reward must name at least one"),
        ("heavy * f1", "what stands before * must be a number, got 'heavy'"),
        ("* f1", "what stands before * must be a number, got ''"),
        ("1e999 * f1", "the weight must be finite"),
        ("no_such_module:reward", "cannot import 'no_such_module:reward': No module named 'no_such_module'"),
        ("my_rewards:brevty", "cannot import 'my_rewards:brevty'"),
        ("my_rewards:SEEN", "'my_rewards:SEEN' is not callable"),
        ("my_rewards:Judge", "reward 'my_rewards:Judge' is a class"),
        ("my_rewards:model", "reward 'my_rewards:model' is a model"),
        ("my_rewards:", "'my_rewards:' is no import path"),
        ("a/b:c", "cannot import 'a/b:c'"),
    ],
)
def test_what_names_no_reward_is_said_in_one_line(text, words, mine):
    with pytest.raises(QreditError) as raised:
        parse_rewards(text)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_module_that_fails_while_it_is_imported_is_one_line(mine, tmp_path):
    (tmp_path / "worse.py").write_text("1 / 0\n")
    with pytest.raises(QreditError, match="cannot import 'worse:reward': ZeroDivisionError: division by zero"):
        parse_rewards("worse:reward")


# --- called outside a trainer


def test_a_function_gets_what_the_trainer_would_give_it(mine):
    (reward,) = parse_rewards("my_rewards:by_column")
    chat = [{"role": "user", "content": "2 + 2?"}]
    found = reward([response(prompt=chat, level="easy", solution="4"), response(level="hard", solution="5")])
    assert found == [1.0, None]
    seen = sys.modules["my_rewards"].SEEN
    assert seen["level"] == ["easy", "hard"]
    assert seen["solution"] == ["4", "5"]
    assert seen["prompts"] == [chat, "2 + 2?"]
    assert seen["completions"] == [[{"role": "assistant", "content": "two and two 4"}], "two and two 4"]
    assert (seen["answer"], seen["response"], seen["id"]) == (["4", "4"], ["4", "4"], ["q", "q"])
    assert seen["rationale"] == ["two and two"] * 2


def test_an_async_function_and_a_tensor_are_read(mine):
    assert parse_rewards("my_rewards:later")[0]([response(), response()]) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", r"reward function 'broken' failed: KeyError: 'missing' \(my_rewards.py, line \d+\)"),
        ("short", "reward function 'short' returned 1 rewards for 2 completions"),
        ("words", r"reward function 'words' returned '1' for row 0 \(id 'q'\)"),
        ("by_column", r"reward function 'by_column' failed: TypeError: .*'level' and 'solution'"),
    ],
)
def test_a_function_that_fails_is_one_line_with_its_name(name, words, mine):
    with pytest.raises(QreditError, match=words):
        parse_rewards(f"my_rewards:{name}")[0]([response(), response()])


def test_reserved_columns_do_not_reach_a_function_twice(mine):
    (reward,) = parse_rewards("my_rewards:by_column")
    reward([response(level="easy", solution="4", answer="raw", prompts="x", trainer_state=1, image=b"")])
    assert sys.modules["my_rewards"].SEEN["answer"] == ["4"]


# --- in every command


def test_train_takes_several_with_weights_and_columns(mine, command, tmp_path):
    reward = "0.5*exact_match, 2*my_rewards:by_column, my_rewards:brevity, my_rewards:later"
    assert command("train", reward=reward, steps=1)[0] == 0
    step = lines(tmp_path / "run" / "metrics.jsonl")[0]
    assert (step["rewards/brevity/mean"], step["rewards/later/mean"], step["half"]) == (-0.25, 0.5, 0.5)
    assert set(lines(tmp_path / "run" / "samples.jsonl")[0]["rewards"]) == {
        "exact_match",
        "by_column",
        "brevity",
        "later",
    }
    levels = sys.modules["my_rewards"].SEEN["level"]
    assert set(levels) <= {"easy", "hard"}
    easy = levels.count("easy") / len(levels)
    assert step["reward"] == pytest.approx(0.5 * step["rewards/exact_match/mean"] + 2 * easy - 0.25 + 0.5)


@pytest.mark.e2e
def test_a_list_in_yaml_is_the_same(mine, command, tmp_path, data, network):
    (tmp_path / "run.yaml").write_text("reward: [exact_match, 0.5 * my_rewards:brevity]\n")
    status, _, _ = command("train", config=tmp_path / "run.yaml", steps=1)
    assert status == 0
    kept = lines(tmp_path / "run" / "samples.jsonl")[0]["rewards"]
    assert set(kept) == {"exact_match", "brevity"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reward": "no_such_module:reward"}, "cannot import 'no_such_module:reward'"),
        ({"reward": "exact_match, f1", "reward_weights": "[1, 2]"}, "reward_weights are given with the rewards"),
        ({"reward": "exact_mach"}, "unknown reward 'exact_mach'"),
    ],
)
@pytest.mark.parametrize("words_of_run", [(), ("--dry-run",)])
def test_train_says_so_before_anything_is_loaded(options, words, words_of_run, command, monkeypatch, tmp_path):
    monkeypatch.setattr("qredit.runs.train.load_data", lambda *a, **k: pytest.fail("data was loaded"))
    status, _, err = command("train", *words_of_run, **options)
    assert status == 2
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_column_in_no_table_is_named_where_it_could_be_read(mine, command, tmp_path):
    odd = data_file(tmp_path / "odd.jsonl", rows(level=lambda n: [n, "text", {"a": 1}][n % 3]))
    status, _, err = command("train", data=odd, reward="my_rewards:brevity")
    assert status == 2
    assert "column 'level'" in err
    assert err.count("\n") == 1
    assert command("train", data=odd, reward="exact_match", steps=1)[0] == 0


def test_eval_and_probe_judge_by_a_function(mine, command):
    status, found, _ = command("eval", reward="my_rewards:by_column, exact_match")
    assert (status, found["scorer"]) == (0, "by_column")
    assert found["metrics"]["p@1"]["value"] == pytest.approx(0.5)
    assert found["metrics"]["by_column"]["value"] == 1.0
    status, found, _ = command("probe", reward="my_rewards:by_column, exact_match")
    assert status == 0
    assert [all(row) for row in found["right"]].count(True) == 3
    assert [any(row) for row in found["right"]].count(False) == 3


@pytest.mark.e2e
def test_a_run_is_evaluated_by_its_own_reward(mine, command, tmp_path, data):
    assert command("train", reward="my_rewards:by_column, exact_match", steps=1)[0] == 0
    options = {"model": tmp_path / "run", "split": "train", "k": 2}
    assert main(["eval", *flags(**options), "--json", "--quiet", "--samples", str(tmp_path / "s.jsonl")]) == 0
    assert "by_column" in lines(tmp_path / "s.jsonl")[0]["scores"]


def test_a_metric_overrides_the_reward(mine, command):
    _, found, _ = command("eval", reward="exact_match", metric="my_rewards:judge")
    assert found["scorer"] == "my_rewards:judge"
    assert found["metrics"]["p@1"]["value"] == 1.0
    assert "exact_match" in found["metrics"]
    status, _, err = command("eval", metric="exact_match, f1")
    assert status == 2
    assert "metric must be one scorer or function" in err


def test_validation_counts_by_the_reward_of_training(mine, command, tmp_path):
    options = {"reward": "my_rewards:judge", "eval_every": 2, "eval_questions": 2, "eval_k": 2}
    assert command("train", **options)[0] == 0
    (line,) = lines(tmp_path / "run" / "validation.jsonl")
    assert line["p@1"] == 1.0
    assert {"my_rewards:judge", "exact_match", "substring"} <= set(line)
