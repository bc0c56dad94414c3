"""qredit subgoal-data: rows by hand from rationales and from the sub-questions of MuSiQue; a run learns from them."""

import json

import pytest

from qredit.cli.main import main
from qredit.curricula import phases
from qredit.curricula.protocol import CurriculumData
from qredit.rewards.judge.steps import STEPS, split_text
from qredit.runs.load import load_data
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example
from qredit.tasks.musique import fill_references, make_musique_task
from qredit.tasks.subgoals import ask_subquestions, show_beginnings
from tests.support.folders import SHORT, data_file, flags, lines, model_folder

RATIONALE = "3 - 1 = 2.5 is wrong.\n\nTwo are left! They cost 4.\n \nSo 8.\n"
ASKED = {"id": "a", "prompt": "How much?", "answer": "8", "why": RATIONALE}
HOPS = (
    ("Who wrote Emma?", "Jane Austen", 2),
    ("Where was #1 born?", "Steventon", 0),
    ("Which county is #2 of #1 in, #3?", "Hampshire", 1),
)


def musique_record(**changes):
    return {
        "id": "3hop__1",
        "paragraphs": [
            {"idx": idx, "title": f"t{idx}", "paragraph_text": f"text {idx}", "is_supporting": idx < 3}
            for idx in range(4)
        ],
        "question": "Which county was the author of Emma born in?",
        "question_decomposition": [
            {"id": number, "question": question, "answer": answer, "paragraph_support_idx": idx}
            for number, (question, answer, idx) in enumerate(HOPS)
        ],
        "answer": "Hampshire",
        "answer_aliases": ["Hants"],
        "answerable": True,
    } | changes


def told(capsys, *words):
    status = main(["subgoal-data", "--json", *words])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("by", "steps"),
    [
        ("blank_lines", ["3 - 1 = 2.5 is wrong.\n\n", "Two are left! They cost 4.\n \n", "So 8.\n"]),
        ("sentences", ["3 - 1 = 2.5 is wrong.\n\n", "Two are left!", " They cost 4.\n \n", "So 8.\n"]),
    ],
)
def test_steps_of_a_text_are_the_text_when_joined(by, steps):
    assert split_text(RATIONALE, by) == steps
    assert split_text(f"\n\n{RATIONALE}", by) == [f"\n\n{steps[0]}", *steps[1:]], "white space alone is no step"
    assert split_text(" \n\n ", by) == []
    assert by in STEPS


def test_a_question_is_asked_behind_its_first_steps():
    """Three steps, of which none, one and two are shown; what is left makes the difficulty."""
    whole = Example("How much?", "8", id="a", aliases=("eight",))
    cut = show_beginnings(whole, split_text(RATIONALE, "blank_lines"), "\n\n")
    assert [(one.id, one.columns["difficulty"], one.columns["question_id"]) for one in cut] == [
        ("a", 3, "a"), ("a:1", 2, "a"), ("a:2", 1, "a"),
    ]  # fmt: skip
    first = "How much?\n\n3 - 1 = 2.5 is wrong."
    assert [one.prompt for one in cut] == ["How much?", first, f"{first}\n\nTwo are left! They cost 4."]
    assert {(one.answer, one.aliases) for one in cut} == {("8", ("eight",))}
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "How much?"}]
    shown = show_beginnings(Example(chat, "8", id="a"), ["one. ", "two."], " So far: ")[1].prompt
    assert shown == [chat[0], {"role": "user", "content": "How much? So far: one."}]


def test_sub_questions_have_earlier_answers_filled_in(tmp_path):
    data_file(tmp_path / "own.jsonl", [musique_record()])
    asked = ask_subquestions(make_musique_task("supporting")).load(str(tmp_path / "own.jsonl"), "train", "cold")
    found = {one.id: one for one in asked}
    assert {id: (one.answer, one.aliases, one.columns["difficulty"]) for id, one in found.items()} == {
        "3hop__1:1": ("Jane Austen", (), 1),
        "3hop__1:2": ("Steventon", (), 1),
        "3hop__1:3": ("Hampshire", ("Hants",), 1),
        "3hop__1": ("Hampshire", ("Hants",), 3),
    }
    assert found["3hop__1:2"].prompt == "t0: text 0\nWhere was Jane Austen born?", "its own passage alone supports it"
    assert found["3hop__1:3"].prompt.endswith("Which county is Steventon of Jane Austen in, #3?"), (
        "no answer 3 before it"
    )
    assert found["3hop__1"].prompt.count("text") == 3
    assert {one.columns["question_id"] for one in asked} == {"3hop__1"}
    assert fill_references("#1, #10 and #0", [str(number) for number in range(9)]) == "0, #10 and #0"


def test_rows_are_read_back_and_a_curriculum_takes_them(tmp_path, capsys):
    """Phases slide from one step left to three; both kinds of rows are of task jsonl."""
    data = data_file(tmp_path / "own.jsonl", [ASKED, ASKED | {"id": "b", "prompt": "And then?", "why": "Nothing."}])
    file = tmp_path / "rows.jsonl"
    given = {"task": "jsonl", "data": data, "rationale_column": "why", "output": file, "lead": " "}
    status, report = told(capsys, *flags(**given))
    assert (status, report["count"], report["questions"]) == (0, 4, 2)
    assert report["difficulty"] == {"1": 2, "2": 1, "3": 1}
    rows = {row["id"]: row for row in lines(file)}
    assert rows["a:1"] == {
        "id": "a:1", "prompt": "How much? 3 - 1 = 2.5 is wrong.", "answer": "8", "difficulty": 2, "question_id": "a",
    }  # fmt: skip
    read = load_data(TrainOptions(task="jsonl", data=str(file)), "train").examples
    column = [one.columns["difficulty"] for one in read]
    data = CurriculumData(4, {"difficulty": column}, per_generation=1, generations=30, seed=0)
    prompts = phases("difficulty", limits=(1, 2), carried=0.0, least=0.1).make(data)
    visited = [column[prompts.next(1)[0]] for _ in range(30) if not prompts.observe([])]
    assert visited == sorted(visited)
    assert set(visited) == {1, 2, 3}


def test_questions_that_are_held_out_give_no_rows(tmp_path, capsys):
    records = [musique_record(id=f"q{number}", question=f"Which, {number}?") for number in range(6)]
    data, file = data_file(tmp_path / "own.jsonl", records), tmp_path / "rows.jsonl"
    given = {"task": "musique", "data": data, "source": "decomposition", "hold_out": 2, "output": file, "subset": 3}
    assert told(capsys, *flags(**given))[0] == 0
    held = load_data(TrainOptions(task="musique", data=str(data), hold_out=2), "validation").examples
    rows = lines(file)
    assert [row["id"].partition(":")[2] for row in rows] == ["1", "2", "3", ""] * 3
    assert {row["question_id"] for row in rows}.isdisjoint(one.id for one in held)
    assert rows[0]["aliases"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "task jsonl has no rationales of its own; name a column: rationale_column"),
        ({"rationale_column": "wy"}, "did you mean 'why'"),
        ({"rationale_column": "gap"}, "1 of 2 questions have no rationale, first 'b'"),
        ({"rationale_column": "why", "steps": "lines"}, "steps"),
        ({"rationale_column": "why", "output": "own.jsonl"}, "own.jsonl exists already"),
        ({"rationale_column": "why", "output": "gone/rows.jsonl"}, "for the rows"),
        ({"source": "decomposition"}, "questions of task jsonl tell no sub-questions"),
        ({"source": "decomposition", "lead": " "}, "lead says how a rationale is cut"),
        ({"task": "pocket-hotpot", "rationale_column": "why"}, "names a column of task jsonl, not of pocket-hotpot"),
        ({"task": "musique"}, "1 of 1 questions have no rationale, first '3hop__1'"),
        ({"task": "musique", "source": "decomposition"}, "1 of 1 questions have no sub-questions with an answer each"),
        ({"rationale_column": "why", "m": 4}, "m"),
    ],
)
def test_what_cannot_be_cut_is_said_in_one_line(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data_file(tmp_path / "own.jsonl", [ASKED | {"gap": "So."}, ASKED | {"id": "b", "prompt": "And?", "gap": " "}])
    data_file(tmp_path / "hops.jsonl", [musique_record(question_decomposition=[{"question": "Who?"}])])
    given = {"task": "jsonl", "data": "hops.jsonl" if options.get("task") == "musique" else "own.jsonl"} | options
    status, report = told(capsys, *flags(**given))
    assert (status, "\n" in report["error"]) == (2, False)
    assert words in report["error"]
    assert not (tmp_path / "subgoals.jsonl").exists()


@pytest.mark.e2e
def test_a_run_learns_from_subgoals_of_a_pocket_task(tmp_path, capsys):
    network, file = model_folder(tmp_path / "tiny"), tmp_path / "rows.jsonl"
    given = {"task": "pocket-musique", "source": "decomposition", "subset": 8, "output": file}
    status, report = told(capsys, *flags(**given))
    assert (status, report["difficulty"]) == (0, {"1": 24, "3": 8})
    shared = {"task": "jsonl", "data": file, "model": network, "output": tmp_path / "run", "cpu": True, **SHORT}
    assert main(["train", "--json", "--quiet", *flags(**shared, objective="grpo()", curriculum="mix_easier(0.5)")]) == 0
    assert len([line for line in lines(tmp_path / "run" / "metrics.jsonl") if "loss" in line]) == 2
