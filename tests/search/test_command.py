"""`qredit search` writes labelled steps, goes on where it was interrupted, refuses in one line what it cannot use."""

import json
from types import SimpleNamespace

import pytest

from qredit.cli.main import main
from qredit.cli.search_command import list_best
from qredit.search import setup
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError
from tests.support.folders import data_file, flags, lines, model_folder, rows

pytestmark = pytest.mark.engine


def length_reward(completions, **columns):
    """Right where something of an even length is said."""
    return [float(len(text) % 2 == 0) for text in completions]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def search(network, tmp_path, capsys):
    """Searches by the command line; the exit status and what it said."""
    data = data_file(tmp_path / "data.jsonl", rows(4))

    def run(output="steps.jsonl", **changes):
        chosen = {"task": "jsonl", "data": data, "model": network, "reward": f"{__name__}:length_reward", "cpu": True,
                  "max_completion_length": 16, "answer_budget": 4, "steps": "sentences", "rounds": 2, "children": 2,
                  "prompts_per_batch": 2, "check": f"{__name__}.odd_steps()"}  # fmt: skip
        words = flags(**{name: value for name, value in (chosen | changes).items() if value is not None})
        status = main(["search", "--json", "--quiet", *words, "--output", str(tmp_path / output)])
        told = capsys.readouterr()
        return status, json.loads(told.out) if status == 0 else told.err

    return run


def odd_steps():
    """A check of one's own: a step is right if its text has an odd length."""
    from qredit.checks import StepCheck

    class Odd(StepCheck):
        def check(self, cases):
            return [len(case.step) % 2 == 1 for case in cases]

    return Odd()


def test_rows_and_the_best_of_them_are_written(search, tmp_path, monkeypatch):
    seeds, once = [], setup.search_prompts
    monkeypatch.setattr(setup, "search_prompts", lambda *given: seeds.append(given[-1]) or once(*given))
    status, told = search(best=tmp_path / "best.jsonl")
    written, best = lines(tmp_path / "steps.jsonl"), lines(tmp_path / "best.jsonl")
    assert status == 0
    assert len(set(seeds)) == len(seeds) == 2  # one for each batch
    assert (told["prompts"], told["labelled"]) == (4, len(written))
    for row in written:
        assert 1 <= len(row["labels"]) == len(row["completions"]) <= len(row["values"]) == len(row["verdicts"])
    assert sum(len(row["labels"]) for row in written) == told["good_steps"] + told["bad_steps"] > 0
    assert best
    assert all(set(row) == {"id", "prompt", "rationale", "answer"} for row in best)
    assert len({row["id"] for row in best}) == len(best) <= told["right"]
    assert not (tmp_path / "steps.jsonl.partial").exists()


def test_the_best_is_the_right_one_of_the_first_rank():
    ranked = [("a", 1, False), ("a", 2, True), ("a", 3, True), ("b", 1, False)]
    found = [
        {"id": id, "rank": rank, "right": right, "rationale": f"r{rank}", "answer": "4"} for id, rank, right in ranked
    ]
    examples = [Example("What?", "4", "a"), Example("Who?", "4", "b")]
    assert list_best(found, examples) == [{"id": "a", "prompt": "What?", "rationale": "r2", "answer": "4"}]


def test_an_interrupted_search_ends_as_the_unbroken_one(search, tmp_path, monkeypatch):
    assert search("whole.jsonl")[0] == 0
    done, once = [], setup.search_part

    def stop_behind_the_first(*given):
        if done:
            raise KeyboardInterrupt
        done.append(given)
        return once(*given)

    monkeypatch.setattr(setup, "search_part", stop_behind_the_first)
    assert search("again.jsonl")[0] == 130
    partial = tmp_path / "again.jsonl.partial"
    partial.write_bytes(partial.read_bytes() + '{"rows": [{"id": "é'.encode()[:-1])  # killed in the midst of a letter
    assert not (tmp_path / "again.jsonl").exists()
    assert "was begun with seed=0, not 1" in search("again.jsonl", seed=1)[1]
    monkeypatch.setattr(setup, "search_part", lambda *given: done.append(given) or once(*given))
    assert search("again.jsonl")[0] == 0
    assert [given[1].start for given in done] == [0, 2]
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"check": "arithmetik()"}, "unknown check of steps 'arithmetik'; did you mean 'arithmetic'"),
        ({"check": "judge('localhost', 'judge')"}, "must be http:// or https://"),
        ({"check": "__import__('os')"}, "unknown check of steps '__import__'"),
        ({"steps": "words"}, "steps must be blank_lines or sentences, got 'words'"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"children": 0}, "children must be at least 1, got 0"),
        ({"wanted": 0}, "wanted must be at least 1, got 0"),
        ({"exploration": -1}, "exploration must be at least 0, got -1"),
        ({"exploration": "nan"}, "exploration must be a finite number, got nan"),
        ({"output": "nowhere/steps.jsonl"}, "for the rows"),
        ({"best": "nowhere/best.jsonl"}, "for the best rationales"),
        ({"tools": "calculator"}, "unknown flag '--tools'"),
        ({"reward": "exact_mach"}, "exact_match"),
    ],
)
def test_what_cannot_be_used_ends_with_one_line(search, monkeypatch, changes, said):
    monkeypatch.setattr(setup, "load_model", None)  # a model would be an error
    status, told = search(**changes)
    assert status == 2
    assert said in told


@pytest.mark.parametrize("name", ["steps.jsonl", "steps.jsonl.partial", "other/../steps.jsonl"])
def test_the_best_have_a_file_of_their_own(search, tmp_path, name):
    (tmp_path / "other").mkdir()
    assert "is where the rows are written; give another --best" in search(best=tmp_path / name)[1]


def test_parts_of_other_questions_are_refused(tmp_path):
    asked = SimpleNamespace(examples=[Example(f"What is {n}?", "4", str(n)) for n in range(3)])
    parts = [[{"id": str(n), "prompt": f"What is {n}?"} for n in (1, 0)], []]
    setup.check_parts(parts, asked, 2, tmp_path)
    with pytest.raises(QreditError, match="is of a search of other questions, first '2'; give another --output"):
        setup.check_parts([*parts[:1], [{"id": "2", "prompt": "What was 2?"}]], asked, 2, tmp_path)


def test_a_file_that_is_there_is_left_alone(search, tmp_path):
    (tmp_path / "steps.jsonl").write_text("mine")
    assert "exists already; give another --output" in search()[1]
    assert (tmp_path / "steps.jsonl").read_text() == "mine"
