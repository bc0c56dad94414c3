"""--env and --tools in train, eval and probe."""

import json
import sys

import pytest

from qredit.cli import main
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError
from tests.support.folders import SHORT, data_file, flags, lines, model_folder, rows
from tests.support.stand_ins import stand_in

GAMES = '''
"""Games and tools of a user."""

from qredit.environments import Step


class Guess:
    """Say one letter more than the secret has, within three turns."""

    def reset(self, example, seed):
        self.turns, self.secret = 0, example["secret"]
        return Step("Guess.", state_key="begin")

    def step(self, action):
        self.turns += 1
        return Step(f"not {self.secret}", reward=len(action) / 10, done=self.turns == 2, state_key="later")


def count(text: str) -> int:
    """Count the letters of a text.

    Args:
        text: what is counted.
    """
    return len(text)


def bare(text):
    return text
'''


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The options of a model of 512 tokens of context, in a folder where the user's games lie."""
    (tmp_path / "user_games.py").write_text(GAMES)
    monkeypatch.chdir(tmp_path)
    yield {
        "task": "jsonl",
        "data": data_file(tmp_path / "rows.jsonl", rows(secret=lambda n: f"word{n}")),
        "model": model_folder(tmp_path / "model", max_position_embeddings=1024),
        "max_turns": 2,
        "observation_budget": 100,
    }
    sys.modules.pop("user_games", None)


def run(capsys, name, **options):
    capsys.readouterr()
    status = main([name, "--quiet", *flags(**options)])
    return status, capsys.readouterr()


def test_an_environment_is_trained_in_evaluated_and_probed(asked, capsys, tmp_path):
    options = {**SHORT, **asked, "env": "user_games:Guess", "steps": 1}
    status, said = run(capsys, "train", **options, output=tmp_path / "run")
    assert status == 0, said.err
    entry = next(entry for entry in lines(tmp_path / "run" / "metrics.jsonl") if "episode/turns" in entry)
    assert entry["episode/turns"] == 2.0
    assert entry["rewards/environment/mean"] == entry["reward"] == pytest.approx(entry["episode/reward"])
    samples = tmp_path / "samples.jsonl"
    evaluated = {"model": tmp_path / "run", "k": 2, "limit": 3, "split": "train", "samples": samples, "json": True}
    status, said = run(capsys, "eval", **evaluated)
    assert status == 0, said.err
    assert {name for one in lines(samples) for name in one["scores"]} >= {"environment"}
    sizes = {"m": 2, "examples": 3, "max_completion_length": 8, "answer_budget": 3, "json": True}
    status, said = run(capsys, "probe", **asked, **sizes, env="user_games:Guess")
    assert status == 0, said.err
    assert json.loads(said.out)


@pytest.mark.e2e
def test_tools_are_trained_with_and_evaluated(asked, capsys, tmp_path):
    options = {**SHORT, **asked, "tools": "user_games:count", "steps": 1}
    status, said = run(capsys, "train", **options, output=tmp_path / "run")
    assert status == 0, said.err
    assert any("episode/turns" in entry for entry in lines(tmp_path / "run" / "metrics.jsonl"))
    status, said = run(capsys, "eval", model=tmp_path / "run", k=2, limit=2, split="train")
    assert status == 0, said.err


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("asking", "counted"),
    [
        ({"task": "pocket-hotpot", "env": "pocket-search", "objective": "garl"}, "episode/reward"),
        ({"task": "pocket-hotpot", "env": "pocket-search", "objective": "igpo"}, "belief/last"),
        ({"task": "pocket-musique", "env": "pocket-search", "objective": "a2tgpo"}, "belief/first"),
        ({"task": "pocket-finqa", "tools": "sql, calculator", "objective": "grpo"}, "episode/turns"),
    ],
    ids=["search", "gains", "gains by place", "tables"],
)
def test_pocket_questions_are_searched_and_calculated(asked, capsys, tmp_path, asking, counted):
    options = {**SHORT, **asked, **asking, "steps": 1, "subset": 8}
    status, said = run(capsys, "train", **{**options, "data": None}, output=tmp_path / "run")
    assert status == 0, said.err
    assert any(counted in entry for entry in lines(tmp_path / "run" / "metrics.jsonl"))
    asked_alone = lines(tmp_path / "run" / "samples.jsonl")[0]["prompt"]
    assert ("lives in" in str(asked_alone)) is False


def test_tools_fit_a_pocket_model_at_default_budgets(capsys):
    """A call's result has room, and so has the prompt that tells of two tools."""
    asked = {"task": "pocket-finqa", "tools": "calculator,sql", "subset": 8, "dry_run": True, "cpu": True, "json": True}
    status, said = run(capsys, "train", **asked)
    assert status == 0, said.err
    assert json.loads(said.out)["prompt_tokens"]["max"] > 200


@pytest.mark.e2e
def test_a_game_of_another_package_is_trained_in(asked, capsys, tmp_path, monkeypatch):
    stand_in("textarena", monkeypatch)
    options = {**SHORT, **asked, "observation_budget": 400, "steps": 1, "objective": "grpo"}
    status, said = run(capsys, "train", **options, env="textarena:GuessTheNumber-v0", output=tmp_path / "run")
    assert status == 0, said.err
    entry = next(entry for entry in lines(tmp_path / "run" / "metrics.jsonl") if "episode/turns" in entry)
    assert entry["episode/invalid_moves"] > 0
    status, said = run(capsys, "train", **options, env="textarena:GuessTheNumber-v9", output=tmp_path / "other")
    assert (status, said.err.count("\n")) == (2, 1)
    assert "unknown game of textarena 'GuessTheNumber-v9'; near are: GuessTheNumber-v0" in said.err
    assert not (tmp_path / "other").exists()


@pytest.mark.e2e
def test_the_search_agent_is_evaluated_and_probed(capsys, tmp_path):
    """The defaults fit its context, in both styles."""
    asked = {"task": "pocket-hotpot", "env": "pocket-search", "json": True}
    status, said = run(capsys, "eval", **asked, style="warm", limit=2, k=2, samples=tmp_path / "samples.jsonl")
    assert status == 0, said.err
    assert len(lines(tmp_path / "samples.jsonl")) == 2
    status, said = run(capsys, "probe", **asked, style="cold", examples=2, m=2)
    assert status == 0, said.err


@pytest.fixture
def unanswered(asked, tmp_path):
    """The same, of rows without reference answers, played in an environment that has rewards of its own."""
    data = data_file(tmp_path / "bare.jsonl", rows(answer=None, secret=lambda n: f"word{n}"))
    return {**asked, "data": data, "env": "user_games:Guess"}


@pytest.mark.e2e
def test_rows_without_answers_are_trained_on_and_judged(unanswered, capsys, tmp_path):
    options = {**SHORT, **unanswered, "steps": 1, "objective": "grpo()", "eval_every": 1, "eval_questions": 2}
    status, said = run(capsys, "train", **options, eval_k=2, output=tmp_path / "run")
    assert status == 0, said.err
    samples = tmp_path / "samples.jsonl"
    evaluated = {"model": tmp_path / "run", "k": 2, "limit": 3, "split": "train", "samples": samples, "json": True}
    status, said = run(capsys, "eval", **evaluated)
    assert status == 0, said.err
    assert [[*one["scores"]] for one in lines(samples)] == [["environment"]] * 3, "nothing judges by answers"
    assert {one["answer"] for one in lines(samples)} == {None}
    assert lines(tmp_path / "run" / "credit.jsonl").pop()["gold"] is None
    assert main(["report", "--quiet", str(tmp_path / "run"), "--output", str(tmp_path / "r.html")]) == 0
    assert "rows have no reference answers" in (tmp_path / "run" / "record.json").read_text()


def test_a_dry_run_tells_that_there_are_no_answers(unanswered, capsys):
    status, said = run(capsys, "train", **{**SHORT, **unanswered, "objective": "grpo()", "dry_run": True})
    assert status == 0, said.err
    assert "no gold answers" in said.out
    assert "answer tokens" not in said.out


@pytest.mark.parametrize(
    ("command", "changes", "reader"),
    [
        ("train", {"objective": "garl(q=0.75)"}, "objective garl(q=0.75) reads its likelihood"),
        ("train", {"objective": "igpo()"}, "objective igpo() reads its likelihood"),
        ("train", {"objective": "grpo()", "reward": "exact_match"}, "reward exact_match judges by it"),
        ("train", {"objective": "grpo()", "reward": "environment, 0.1 * f1"}, "reward f1 judges by it"),
        ("train", {"objective": "grpo()", "answer_column": "gold"}, "no field 'gold'"),
        ("probe", {"m": 2}, "the probe reads its likelihood"),
        ("eval", {"metric": "exact_match"}, "reward exact_match judges by it"),
        ("sft", {}, "supervised fine-tuning shows it"),
    ],
)
def test_who_reads_answers_is_named_where_rows_have_none(unanswered, capsys, tmp_path, command, changes, reader):
    read = {"sft": ("task", "data", "model")}.get(command, [*unanswered])
    written = {"train": {**SHORT, "output": tmp_path / "run"}, "sft": {"output": tmp_path / "run"}}.get(command, {})
    status, said = run(capsys, command, **{**written, **{name: unanswered[name] for name in read}, **changes})
    assert status == 2
    assert reader in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_comparison_names_the_arm_that_reads_answers(unanswered, capsys, tmp_path):
    sizes = {"m": 2, "prompts_per_step": 2, "steps": 1, "questions": 2, "output": tmp_path / "arms"}
    asked = flags(**unanswered, **sizes)
    capsys.readouterr()
    assert main(["compare", "grpo()", "garl(q=0.75)", "--quiet", *asked]) == 2
    said = capsys.readouterr().err
    assert "objective garl(q=0.75) reads its likelihood" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "arms").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": "user_games:bare"}, "tool bare has no docstring"),
        ({"tools": "user_games:none"}, "cannot import 'user_games:none'"),
        ({"env": "user_games:count"}, "environment count cannot be made: TypeError"),
        ({"env": "json:JSONEncoder"}, "environment JSONEncoder has no method reset(example, seed)"),
        ({"tools": "user_games:count", "observation_budget": 3}, "observation_budget=3 holds no observation"),
        ({"env": "pocket-search"}, "environment pocket-search is for task pocket-hotpot, pocket-musique, pocket-dial"),
        ({"env": "pocket-serch"}, "unknown environment 'pocket-serch'; did you mean 'pocket-search'?"),
        ({"tools": "calculator, sq"}, "unknown tool 'sq'; did you mean 'sql'?"),
        ({"env": "user_games:Guess", "m": 4, "objective": "garl(0.5, proposal=hint(share=0.5))"}, "leave the proposal"),
    ],
)
def test_what_cannot_be_played_ends_with_status_2(asked, capsys, tmp_path, changes, message):
    status, said = run(capsys, "train", **{**SHORT, **asked, **changes}, output=tmp_path / "run")
    assert status == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_turns": 3}, "max_turns needs env or tools"),
        ({"env": "a:b", "tools": "a:c"}, "give env or tools"),
        ({"env": "a:b", "tool_seconds": 1.0}, "tool_seconds needs tools"),
        ({"tools": "a:b", "tool_seconds": 0.0}, "tool_seconds must be more than 0"),
        ({"tools": "a:b", "max_turns": 0}, "max_turns must be at least 1"),
        ({"tools": "a:b", "observation_budget": 0}, "observation_budget must be at least 1"),
        ({"tools": "a:b", "episode_budget": 39}, "episode_budget=39 holds no turn"),
    ],
)
def test_options_of_episodes_that_do_not_fit_are_refused(given, message):
    with pytest.raises(QreditError, match=message):
        TrainOptions(**given)
    assert TrainOptions(env="a:b").rewards == "environment"
    assert [TrainOptions(env="a:b", model=name).episodes.observation for name in ("pocket", "other")] == [40, 256]
    assert TrainOptions(env="a:b", observation_budget=100).episodes.observation == 100
    assert TrainOptions(env="a:b").episodes.turns == TrainOptions(tools="a:b", model="other").episodes.turns == 4
    tools = TrainOptions(tools="a:b", observation_budget=90).episodes
    assert (tools.turns, tools.observation, TrainOptions(tools="a:b").episodes.observation) == (2, 90, 64)
    assert TrainOptions(tools="a:b").rewards == TrainOptions().rewards
