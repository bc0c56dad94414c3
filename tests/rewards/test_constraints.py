"""Constraints of an answer: what each check says, and the share that holds."""

import json

import pytest

from qredit.cli.main import main
from qredit.rewards import parse_rewards
from qredit.rewards.constraints import CHECKS, parse_constraints, score_constraints
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError
from tests.support.folders import SHORT, data_file, flags, model_folder

TEXT = "One two three. Is it 3.5?\n- first\n2) second word"


@pytest.mark.parametrize(
    ("constraint", "holds"),
    [
        ("words(most=11)", True),
        ("words(most=10)", False),
        ("words(least=11, most=11)", True),
        ("words(least=12)", False),
        ("sentences(least=2)", True),
        ("sentences(least=9)", False),
        ("bullets(least=2, most=2)", True),
        ("bullets(most=1)", False),
        ("contains(phrase='TWO three')", True),
        ("contains(phrase='wo')", False),
        ("contains(phrase='one', least=2)", False),
        ("contains(phrase='3.5')", True),
        ("forbids(phrase='second')", False),
        ("forbids(phrase='sec')", True),
        ("case(kind='lower')", False),
        ("ends_with(phrase='word')", True),
        ("ends_with(phrase='Word')", False),
        ("starts_with(phrase='One two')", True),
        ("is_json", False),
    ],
)
def test_a_check_says_whether_an_answer_keeps_it(constraint, holds):
    (made,) = parse_constraints(constraint)
    assert made.holds(TEXT) is holds


def test_checks_of_other_texts():
    assert [CHECKS["sentences"](text, 1, 1) for text in ("One.", "One", "One. Two", "...", "Really?!")] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert CHECKS["case"]("ALL 3", "upper")
    assert not CHECKS["case"]("3", "upper")
    assert [CHECKS["is_json"](text) for text in ('{"a": [1]}', "[" * 100000, "1 2")] == [True, False, False]


def test_the_score_is_the_share_that_holds():
    three = parse_constraints(["words(most=3)", "forbids(phrase='no')", "ends_with(phrase='.')"])
    assert score_constraints("Yes, of course.", three) == 1
    assert score_constraints("No", three) == pytest.approx(1 / 3)
    assert score_constraints(" ", three) == 0  # though it is short and forbids nothing


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "constraints must be a list of texts such as"),
        ([3], "constraints must be a list of texts such as"),
        ("word(most=3)", "unknown constraint 'word'; did you mean 'words'"),
        ("words(3)", "constraint 'words\\(3\\)': arguments are given by name"),
        ("words(max=3)", "got an unexpected keyword argument 'max'; it takes least, most"),
        ("contains()", "missing a required argument: 'phrase'; it takes phrase, least, most"),
        ("words(most=-1)", "constraint words: most must be a whole number, at least 0, got -1"),
        ("words(least=4, most=3)", "most must be a whole number, at least 4, got 3"),
        ("forbids(phrase=' ')", "phrase must be a text that is not blank"),
        ("case(kind='title')", "unknown kind of case 'title'"),
        ("words(most=__import__('os'))", "not constants by name"),
    ],
)
def test_a_constraint_that_cannot_be_checked_is_refused(value, said):
    with pytest.raises(QreditError, match=said):
        parse_constraints(value)


def test_a_reward_of_constraints_reads_its_column():
    (reward,) = parse_rewards("constraints")
    rows = [["words(most=2)"], ["words(least=2)", "case(kind='lower')"]]
    assert reward.function(completions=["One two three", "yes No"], constraints=rows) == [0, 0.5]
    with pytest.raises(QreditError, match="reward 'constraints', row b: unknown constraint 'nothing'"):
        reward.check([Example("?", None, id="b", columns={"constraints": ["nothing"]})])


@pytest.mark.e2e
def test_a_run_is_rewarded_by_columns(tmp_path, capsys):
    """Rows need no answers; one that cannot be judged is refused before anything is written."""
    rows = [
        {"prompt": f"What is {n}? ", "constraints": ["words(most=9)"], "tests": ["assert f() == 1"]} for n in range(6)
    ]
    given = {"task": "jsonl", "data": data_file(tmp_path / "rows.jsonl", rows), "objective": "grpo", **SHORT}
    given |= {"model": model_folder(tmp_path / "model"), "output": tmp_path / "run"}
    assert main(["train", "--quiet", *flags(**given, reward="constraints, 0.5 * unit_tests")]) == 0
    entry = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"rewards/constraints/mean", "rewards/unit_tests/mean"} <= set(entry)
    data_file(tmp_path / "rows.jsonl", [*rows, {"prompt": "One? ", "constraints": ["word(most=9)"]}])
    assert main(["train", "--quiet", *flags(**given | {"output": tmp_path / "other"}, reward="constraints")]) == 2
    assert "unknown constraint 'word'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
