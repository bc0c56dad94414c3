"""qredit subgoal-data: rows by hand from rationales and from the sub-questions of MuSiQue; a run learns from them."""

import json
import re

import pytest

from qredit.cli.main import main
from qredit.curricula import phases
from qredit.curricula.protocol import CurriculumData
from qredit.rewards.judge.steps import STEPS, split_text
from qredit.runs.load import load_data
from qredit.runs.options import TrainOptions
from qredit.runs.subgoal_data import cut_decompositions, cut_rationales
from qredit.tasks.base import Example
from qredit.tasks.musique import fill_references
from qredit.tasks.subgoals import show_beginnings
from qredit.utils.errors import QreditError
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


def mark_hops(support, **changes):
    """A record whose sub-questions are marked with this passage."""
    return musique_record(
        question_decomposition=[
            {"question": question, "answer": answer, "paragraph_support_idx": support} for question, answer, _ in HOPS
        ],
        **changes,
    )


def cut_record(folder, *records, split="train", **options):
    data = data_file(folder / "own.jsonl", records)
    given = {"task": "musique", "passages": "supporting", "data": str(data)} | options
    return cut_decompositions(TrainOptions(**given), split).rows


def cut_own_rows(folder, rows, column="why", by="blank_lines", lead=" ", **options):
    data = data_file(folder / "own.jsonl", rows)
    return cut_rationales(TrainOptions(task="jsonl", data=str(data), **options), "train", column, by, lead)


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
    found = {row["id"]: row for row in cut_record(tmp_path, musique_record())}
    assert {id: (row["answer"], row["aliases"], row["difficulty"]) for id, row in found.items()} == {
        "3hop__1:1": ("Jane Austen", [], 1),
        "3hop__1:2": ("Steventon", [], 1),
        "3hop__1:3": ("Hampshire", ["Hants"], 1),
        "3hop__1": ("Hampshire", ["Hants"], 3),
    }
    assert found["3hop__1:2"]["prompt"] == "t0: text 0\nWhere was Jane Austen born?", "its own passage alone"
    assert found["3hop__1:3"]["prompt"].endswith("Which county is Steventon of Jane Austen in, #3?"), "no answer 3 yet"
    assert found["3hop__1"]["prompt"].count("text") == 3
    assert {row["question_id"] for row in found.values()} == {"3hop__1"}
    assert fill_references("#1, #10 and #0", [str(number) for number in range(9)]) == "0, #10 and #0"


@pytest.mark.parametrize(
    ("passages", "shown"), [("all", "t0: text 0\nt1: text 1\n"), ("supporting", "t0: text 0\n"), ("none", "")]
)
def test_a_passage_needs_no_number_until_it_is_named(passages, shown, tmp_path):
    paragraphs = [{"title": f"t{n}", "paragraph_text": f"text {n}", "is_supporting": n == 0} for n in range(2)]
    first, *_ = cut_record(tmp_path, mark_hops(None, paragraphs=paragraphs), passages=passages)
    assert first["prompt"] == f"{shown}Who wrote Emma?"
    named = mark_hops(1, paragraphs=paragraphs)
    if passages == "supporting":
        with pytest.raises(QreditError, match="own.jsonl, record 1: 'paragraph_support_idx' of sub-question 1, 1, is"):
            cut_record(tmp_path, named)
    else:
        assert cut_record(tmp_path, named, passages=passages)[0] == first


@pytest.mark.parametrize("support", [77, [1], "1"])
def test_a_sub_question_without_its_passage_is_not_asked(support, tmp_path):
    words = f"'paragraph_support_idx' of sub-question 1, {support!r}, is the 'idx' of none of the 'paragraphs'"
    with pytest.raises(QreditError, match=re.escape(words)):
        cut_record(tmp_path, mark_hops(support))
    assert len(cut_record(tmp_path, mark_hops(support), passages="all")) == 4, "all passages are shown"


@pytest.mark.parametrize("passages", ["all", "supporting", "none"])
def test_a_sub_question_is_not_said_to_take_several_facts(passages, tmp_path):
    *hops, whole = [row["prompt"] for row in cut_record(tmp_path, musique_record(), passages=passages, style="warm")]
    assert len(hops) == 3
    assert not any("combining" in prompt or "several facts" in prompt for prompt in hops)
    assert "combining" in whole or "several facts" in whole


def test_what_is_left_out_need_not_be_cut(tmp_path):
    """Of four questions two cannot be cut: those that are held out, then those beyond the subset."""
    options = {"hold_out": 2, "subset": "1"}
    order = [f"q{number}" for number in range(4)]
    records = {id: musique_record(id=id, question=f"Which, {id}?") for id in order}
    asked = {row["question_id"] for row in cut_record(tmp_path, *records.values(), **options)}
    assert len(asked) == 1
    broken = [one if id in asked else one | {"question_decomposition": 5} for id, one in records.items()]
    assert {row["question_id"] for row in cut_record(tmp_path, *broken, **options)} == asked
    with pytest.raises(QreditError, match="1 of 2 questions have no sub-questions with an answer each"):
        cut_record(tmp_path, *broken, hold_out=2)


def test_rows_keep_the_columns_that_rewards_read(tmp_path):
    own = {"tests": ["f(1) == 2"], "meta": {"why": RATIONALE, "source": "s"}, "question": "Whole?", "solution": "8"}
    asked = {"id": "a", "said": "How much?", "aliases": ["x"], "difficulty": "hard"}
    given = {"prompt_column": "said", "answer_column": "solution", "aliases_column": "more"}
    cut = cut_own_rows(tmp_path, [own | asked | {"more": ["eight"]}], "meta.why", **given)
    assert cut.rows[1] == {
        "id": "a:1", "prompt": "How much? 3 - 1 = 2.5 is wrong.", "answer": "8", "aliases": ["eight"],
        "more": ["eight"], "tests": ["f(1) == 2"], "meta": {"source": "s"}, "question": "Whole?", "solution": "8",
        "difficulty": 2, "question_id": "a",
    }  # fmt: skip
    file = data_file(tmp_path / "rows.jsonl", cut.rows)
    read = load_data(TrainOptions(task="jsonl", data=str(file)), "train").examples
    assert {one.id: (one.prompt, one.right) for one in read}["a:1"] == (cut.rows[1]["prompt"], ("8", "eight"))


def test_a_column_that_json_cannot_hold_is_named(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = ASKED | {"image": b"\x89", "level": 3}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "own.parquet")
    options = TrainOptions(task="jsonl", data=str(tmp_path / "own.parquet"))
    cut = cut_rationales(options, "train", "why", "blank_lines", " ")
    assert cut.notes == ("columns that JSON cannot hold are left out: image",)
    assert [(row["level"], "image" in row) for row in cut.rows] == [(3, False)] * 3


def test_a_rationale_that_is_not_cut_is_said(tmp_path, capsys):
    told_of = "no rationale has two steps by {}, so each question is one row, as hard as it was{}"
    hint = "; --steps sentences ends a step with each sentence"
    rows = [ASKED | {"why": "One. Two."}, ASKED | {"id": "b", "prompt": "And?", "why": "One."}]
    assert cut_own_rows(tmp_path, rows).notes == (told_of.format("blank_lines", hint),)
    assert cut_own_rows(tmp_path, rows, by="sentences").notes == ()
    assert cut_own_rows(tmp_path, rows[1:], by="sentences").notes == (told_of.format("sentences", ""),)
    given = {"task": "jsonl", "data": data_file(tmp_path / "own.jsonl", rows), "rationale_column": "why"}
    assert main(["subgoal-data", *flags(**given, output=tmp_path / "rows.jsonl")]) == 0
    assert hint in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ASKED | {"why": "One.\n\nHalf \ud83d.\n\nSo."}], "record 1: field 'why' holds half a character"),
        ([ASKED | {"why": "One.\n\nNo\0.\n\nSo."}], "record 1: field 'why' holds a NUL character"),
        (
            [ASKED, ASKED | {"id": "a:1", "prompt": "And?"}],
            "jsonl: 1 ids occur more than once with different rows, first 'a:1' (",
        ),
    ],
)
def test_rows_that_could_not_be_read_back_are_not_written(rows, words, tmp_path):
    with pytest.raises(QreditError, match=re.escape(words)):
        cut_own_rows(tmp_path, rows)


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
    kept = cut_record(tmp_path, *records, split="validation", hold_out=4)
    assert [row["question_id"] for row in kept[:8]] == [one.id for one in held for _ in range(4)]
    assert len(kept) == 16, "each that is held out is asked, though the file by itself would be cut into halves"


def test_rationales_that_are_held_out_give_no_rows(tmp_path):
    rows = [ASKED | {"id": f"q{number}", "prompt": f"{number}?"} for number in range(6)]
    cut = cut_own_rows(tmp_path, rows, hold_out=2, subset="3")
    options = TrainOptions(task="jsonl", data=str(tmp_path / "own.jsonl"), hold_out=2)
    held = {one.id for one in load_data(options, "validation").examples}
    assert (len(cut.rows), len(held)) == (9, 2)
    assert {row["question_id"] for row in cut.rows}.isdisjoint(held)


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
        ({"rationale_column": "why", "lead": "\ud83d"}, "lead holds half a character"),
        ({"task": "pocket-hotpot", "rationale_column": "why"}, "names a column of task jsonl, not of pocket-hotpot"),
        ({"task": "musique"}, "1 of 1 questions have no rationale, first '3hop__1'"),
        ({"task": "musique", "source": "decomposition"}, "1 of 1 questions have no sub-questions with an answer each"),
        (
            {"task": "musique", "source": "decomposition", "data": "five.jsonl"},
            "1 of 1 questions have no sub-questions",
        ),
        (
            {"task": "musique", "source": "decomposition", "data": "true.jsonl"},
            "1 of 1 questions have no sub-questions",
        ),
        ({"rationale_column": "why", "m": 4}, "m"),
    ],
)
def test_what_cannot_be_cut_is_said_in_one_line(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data_file(tmp_path / "own.jsonl", [ASKED | {"gap": "So."}, ASKED | {"id": "b", "prompt": "And?", "gap": " "}])
    for name, hops in {"hops": [{"question": "Who?"}], "five": 5, "true": True}.items():
        data_file(tmp_path / f"{name}.jsonl", [musique_record(question_decomposition=hops)])
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
