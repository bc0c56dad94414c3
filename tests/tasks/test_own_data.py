"""Users' own files as they come: what is read, as what, and what is refused with the row and what helps."""

import csv
import gzip
import json
import os
from dataclasses import replace

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.runs.load import is_single_file, load_data, load_held_out
from qredit.runs.options import TrainOptions
from qredit.runs.train_overlap import count_trained_on, describe_questions
from qredit.tasks import get
from qredit.tasks.base import Example
from qredit.tasks.jsonl import make_jsonl_task
from qredit.tasks.normal_forms import normalize_prompt, normalize_text
from qredit.tasks.number_text import VerbatimFloat, format_number
from qredit.tasks.overlap import Overlap, count_overlap, normalize_loosely
from qredit.tasks.prompt_text import add_instructions
from qredit.trl.dataset_encoding import check_columns, encode_examples
from qredit.utils.errors import QreditError
from tests.support.folders import SHORT, flags, model_folder
from tests.support.tiny import chat_tokenizer, tokenizer
from tests.tasks.test_tasks import FILES, GSM8K, copies, write

HALF = "\ud83d"  # the first half of an emoji, which json.dumps writes and reads back
ROW = {"prompt": "one?", "answer": "1"}
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of Italy?"}]
ROME = {"role": "assistant", "content": "Rome"}


def put(path, *rows):
    """A file of the rows, of the kind that its name says."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def loaded(path, task=None, split="train"):
    return (task or make_jsonl_task()).loaded(str(path), split, "cold")


def read(path, task=None, split="train"):
    """(prompt, answer, *aliases) of every row, in the order of the file."""
    examples = sorted(loaded(path, task, split).examples, key=lambda example: int(example.id))
    return [(example.prompt, example.answer, *example.aliases) for example in examples]


def refusal(path, task=None, split="train"):
    with pytest.raises(QreditError) as caught:
        loaded(path, task, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- bytes and lines

TWO = '{"prompt": "é 1?", "answer": "1"}', '{"prompt": "２?", "answer": "２"}'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", "\n".join(TWO).encode("utf-8-sig")),
        ("a.jsonl", "\n".join(TWO).encode("utf-16")),
        ("a.jsonl", "\ufeff".encode("utf-16-be") + "\n".join(TWO).encode("utf-16-be")),
        ("a.jsonl", "\n".join(TWO).encode("utf-32")),
        ("a.jsonl", "\r\n".join([TWO[0], "", " ", TWO[1], ""]).encode()),
        ("a.jsonl", "\r".join(TWO).encode()),
        ("a.jsonl", f"[{','.join(TWO)}]".encode()),
        ("a.jsonl", ("\ufeff\n[\n" + ",\n".join(TWO) + "\n]\n").encode()),
        ("a.json", "\n".join(TWO).encode()),
        ("A.JSONL", "\n".join(TWO).encode()),
        ("a.json.gz", gzip.compress(f"[{','.join(TWO)}]".encode(), mtime=0)),
        ("a.jsonl.gz", gzip.compress("\n".join(TWO).encode(), mtime=0)),
        ("a.csv.gz", gzip.compress("prompt,answer\r\né 1?,1\r\n２?,２\r\n".encode("utf-8-sig"), mtime=0)),
    ],
)
def test_files_as_other_programs_write_them_are_read(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == [("é 1?", "1"), ("２?", "２")]  # full width stays: the text is never changed


def test_a_row_behind_blank_lines_is_named_by_its_line_too(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{json.dumps(ROW)}\n\n\n{{"prompt": "two?", "answer": null}}\n')
    assert refusal(path) == f"{path}, record 2 (line 4): field 'answer' is null"


@pytest.mark.parametrize("name", ["prompt", "answer", "aliases", "id"])
@pytest.mark.parametrize(("bad", "what"), [(HALF, r"the lone surrogate \ud83d"), ("\0", "a NUL character")])
def test_text_that_no_tokenizer_reads_is_refused_with_its_row(tmp_path, name, bad, what):
    path = put(tmp_path / "a.jsonl", ROW, {"prompt": "two?", "answer": "2", name: f"x{bad}y"})
    said = refusal(path)
    assert said.startswith(f"{path}, record 2: ")
    assert what in said
    assert "(at 1)" in said


def test_the_same_in_a_message_and_in_an_official_file(tmp_path):
    chat = [{"role": "user", "content": f"Who is {HALF}?"}]
    assert "record 1: field 'prompt' holds half a character" in refusal(
        put(tmp_path / "a.jsonl", {"prompt": chat, "answer": "1"})
    )
    path = write(tmp_path / FILES["gsm8k"]["test"], [{**GSM8K, "question": f"How many {HALF}?"}])
    assert "record 1: field 'question' holds half a character" in refusal(path, get("gsm8k"), "test")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(tmp_path):
    path = put(tmp_path / "a.jsonl", ROW)
    os.chmod(path, 0)
    assert refusal(path) == f"cannot read {path}: Permission denied"


def test_what_the_system_refuses_is_said_in_one_line(tmp_path, monkeypatch):
    path = put(tmp_path / "a.jsonl", ROW)
    long = str(tmp_path / ("a" * 300 + ".jsonl"))
    assert refusal(long) == f"cannot read {long}: File name too long"

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    assert refusal(path) == f"cannot read {path}: Permission denied"


def test_a_cell_may_be_longer_than_the_csv_modules_limit(tmp_path):
    prompt = "a, " * 70_000
    assert read(put(tmp_path / "a.csv", {"prompt": prompt, "answer": "1"})) == [(prompt, "1")]


# --- numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (13, "13"),
        (13.0, "13"),
        (-0.0, "0"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e16, "10000000000000000"),
        (1e300, "1e+300"),
        (VerbatimFloat("1e+16"), "1e+16"),
        (VerbatimFloat("13.0"), "13"),
        (VerbatimFloat("0.50"), "0.50"),
        (2**80, "1208925819614629174706176"),
    ],
)
def test_numbers_are_written_as_in_their_file(value, text):
    assert format_number(value) == text


def test_numbers_of_a_json_file_keep_their_digits(tmp_path):
    path = tmp_path / "a.jsonl"
    digits = ["1e+16", "0.30000000000000004", "0.50", "13.0", "1E5", "123456789012345678901234567890"]
    path.write_text("".join(f'{{"prompt": "q{text}", "answer": {text}}}\n' for text in digits))
    assert [answer for _, answer in read(path)] == [*digits[:3], "13", *digits[4:]]


@pytest.mark.parametrize("kind", [pyarrow.float64(), pyarrow.float32(), pyarrow.decimal128(21, 2)])
def test_integers_that_became_floats_are_still_integers(tmp_path, kind):
    answers = pyarrow.array([13, None, 7]).cast(kind)
    table = pyarrow.table({"prompt": ["a", "b", "c"], "answer": answers}).filter(answers.is_valid())
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("a", "13"), ("c", "7")]


def test_short_floats_print_as_what_they_are(tmp_path):
    table = pyarrow.table({"prompt": ["a", "b"], "answer": pyarrow.array([0.1, 2.5], pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("a", "0.1"), ("b", "2.5")]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "true"])
def test_what_is_no_finite_number_is_refused_with_its_row(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(f'{json.dumps(ROW)}\n{{"prompt": "q", "answer": {text}}}\n')
    assert "record 2: field 'answer' must be text, a number or" in refusal(tmp_path / "a.jsonl")


# --- columns


VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [{"role": "user", "content": "1 + 1?"}],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"index": 0, "split": "train"},
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("column", [None, "reward_model.ground_truth"])
def test_the_schema_of_verl_is_read(tmp_path, kind, column):
    path = put(tmp_path / f"a.{kind}", VERL)
    assert read(path, make_jsonl_task(answer=column)) == [(VERL["prompt"], "2")]


def test_a_missing_inner_column_is_named_with_those_there_are(tmp_path):
    path = put(tmp_path / "a.jsonl", VERL)
    assert refusal(path, make_jsonl_task(answer="reward_model.ground_thruth")) == (
        f"{path}, record 1: no field 'reward_model.ground_thruth'; did you mean 'ground_truth'? "
        "There are: ground_truth, style"
    )
    assert "the part before 'x' is not an object" in refusal(path, make_jsonl_task(answer="ability.x"))
    assert "There are: ability, data_source, extra_info, prompt, reward_model" in refusal(
        path, make_jsonl_task(prompt="a.b")
    )


def test_inner_prompts_and_aliases_and_dotted_names_are_read(tmp_path):
    row = {"a": {"q": "one?"}, "b.c": "1", "d": {"value": "x", "more": ["I", 1.0]}}
    task = make_jsonl_task("b.c", "a.q", "d.more")
    assert read(put(tmp_path / "a.jsonl", row), task) == [("one?", "1", "I")]


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"question": "q", "answer": "a"}, "question", "answer"),
        ({"problem": "q", "solution": "a"}, "problem", "solution"),
        ({"problem": "q", "solution": "worked", "answer": "a"}, "problem", "answer"),
        ({"query": "q", "response": "a"}, "query", "response"),
        ({"input": "q", "output": "a"}, "input", "output"),
        ({"instruction": "q", "output": "a"}, "instruction", "output"),
        ({"prompt": "q", "completion": [{"role": "assistant", "content": "a"}]}, "prompt", "completion"),
        ({"prompt": "q", "ground_truth": "a"}, "prompt", "ground_truth"),
    ],
)
def test_columns_with_names_that_others_use_are_taken_and_named(tmp_path, row, question, answer):
    found = loaded(put(tmp_path / "a.jsonl", row))
    assert found.examples == [Example("q", "a", "1")]
    assert found.notes == (f"prompts are column '{question}', answers column '{answer}'",)


def test_prompt_and_answer_go_without_saying(tmp_path):
    assert loaded(put(tmp_path / "a.jsonl", {**ROW, "question": "other", "solution": "other"})).notes == ()


@pytest.mark.parametrize(
    ("row", "option"),
    [
        ({"instruction": "i", "input": "q", "output": "a"}, "'instruction' or 'input'; say which: --prompt-column"),
        ({"prompt": "q", "solution": "long", "response": "r"}, "'solution' or 'response'; say which: --answer-column"),
        ({"topic": "q", "answer": "a"}, "no field 'prompt'; There are: answer, topic; name one with --prompt-column"),
        ({"prompt": "q", "truth": "a"}, "no field 'answer'; There are: prompt, truth; name one with --answer-column"),
    ],
)
def test_several_possible_columns_or_none_are_refused(tmp_path, row, option):
    assert option in refusal(put(tmp_path / "a.jsonl", row))


def test_rows_are_without_answers_where_nobody_reads_them(tmp_path):
    """A column of answers that is there is read and checked as ever; aliases of nothing are nothing."""
    task = make_jsonl_task(needed=None)
    found = task.loaded(
        str(put(tmp_path / "a.jsonl", {"prompt": "q", "aliases": ["b", "c"]}, {"prompt": "r"})), "train", "cold"
    )
    told = [(one.prompt, one.answer, one.aliases) for one in found.examples]
    assert told == [("q", None, ()), ("r", None, ())]
    assert found.notes == ("prompts are column 'prompt', and rows have no reference answers",)
    (chat,) = task.load(str(put(tmp_path / "b.jsonl", {"messages": CHAT})), "train", "cold")
    assert (chat.prompt, chat.answer) == (CHAT, None)
    (chat,) = task.load(str(put(tmp_path / "c.jsonl", {"messages": [*CHAT, ROME]})), "train", "cold")
    assert (chat.prompt, chat.answer) == (CHAT, "Rome")
    with pytest.raises(QreditError, match="record 2: field 'answer'"):
        task.load(str(put(tmp_path / "d.jsonl", ROW, {"prompt": "q", "answer": ""})), "train", "cold")


def test_the_last_message_of_a_chat_is_the_answer(tmp_path):
    path = put(tmp_path / "a.jsonl", {"messages": [*CHAT, ROME]})
    assert read(path) == [(CHAT, "Rome")]
    assert loaded(path).notes == ("prompts are column 'messages', answers the last of them",)
    said = refusal(put(tmp_path / "b.jsonl", {"messages": [*CHAT, ROME]}, {"messages": CHAT}))
    assert "record 2: the last message of 'messages' must be the assistant's answer" in said


def test_a_chat_is_a_prompt_unless_it_holds_the_answer(tmp_path):
    assert read(put(tmp_path / "a.jsonl", {"messages": CHAT, "answer": "Rome"})) == [(CHAT, "Rome")]
    said = refusal(put(tmp_path / "b.jsonl", {"messages": [*CHAT, ROME], "answer": "Rome"}))
    assert "record 1: 'messages' ends with the assistant's answer, which the model would see" in said


def test_an_aliases_column_that_no_row_has_is_refused(tmp_path):
    said = refusal(put(tmp_path / "a.jsonl", {**ROW, "others": ["I"]}), make_jsonl_task(aliases="other"))
    assert "unknown aliases column" in said
    assert "'other'; did you mean 'others'?" in said


def test_a_list_of_answers_is_the_answer_and_its_aliases(tmp_path):
    rows = [
        {"prompt": "a", "answer": ["Paris"]},
        {"prompt": "b", "answer": ["Paris", "City of Light", 75.0], "aliases": ["Lutetia", "Paris"]},
    ]
    expected = [("a", "Paris"), ("b", "Paris", "City of Light", "75", "Lutetia")]
    assert read(put(tmp_path / "a.jsonl", *rows)) == expected


def test_squad_answers_are_read_by_their_dotted_name(tmp_path):
    row = {"question": "q", "answers": {"text": ["x", "y"], "answer_start": [1, 2]}}
    assert read(put(tmp_path / "a.jsonl", row), make_jsonl_task(answer="answers.text")) == [("q", "x", "y")]


# --- what Arrow adds


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_keys_that_arrow_adds_to_messages_are_dropped(tmp_path, kind):
    rows = [
        {"prompt": [{"role": "user", "content": "a"}], "answer": "1"},
        {"prompt": [{"role": "user", "content": "b", "name": "Ann", "extra": [{"x": 1}, {"y": 2}]}], "answer": "2"},
    ]
    path = put(tmp_path / f"a.{kind}", *rows)
    assert [prompt for prompt, _ in read(path)] == [row["prompt"] for row in rows]


def test_messages_of_different_keys_are_refused_in_one_line(tmp_path):
    from qredit.runs.load import make_dataset

    prompts = [[{"role": "user", "content": "a", "name": name}] for name in ("Ann", 7)]
    with pytest.raises(QreditError, match="give each of their keys values of one kind") as caught:
        make_dataset([Example("a", "1", "1"), Example("a", "1", "2")], prompts)
    assert "\n" not in str(caught.value)


# --- folders


def test_the_only_file_of_a_folder_is_read_whatever_its_name(tmp_path):
    path = put(tmp_path / "questions.jsonl", ROW)
    (tmp_path / "README.md").write_text("about")
    assert read(tmp_path) == [("one?", "1")]
    assert loaded(tmp_path).notes == (f"read from {path}",)
    assert is_single_file(TrainOptions(task="jsonl", data=str(tmp_path)))
    put(tmp_path / "more.jsonl", ROW)
    assert "it holds: README.md, more.jsonl, questions.jsonl" in refusal(tmp_path)


def test_the_file_of_one_split_is_not_taken_for_another(tmp_path):
    put(tmp_path / "train.jsonl", ROW)
    assert "no test.jsonl or test.json" in refusal(tmp_path, split="test")
    assert not is_single_file(TrainOptions(task="jsonl", data=str(tmp_path)))


def test_the_file_of_a_split_may_be_packed(tmp_path):
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROW).encode()))
    assert read(tmp_path) == [("one?", "1")]


@pytest.mark.parametrize("folder", [".", "data"])
def test_copy_of_data_set_from_hub_is_read_with_all_its_shards(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    for n in range(2):
        put(tmp_path / folder / f"train-0000{n}-of-00002.parquet", {"prompt": f"{n}?", "answer": str(n)})
    put(tmp_path / folder / "test-00000-of-00001.parquet", ROW)
    assert read(tmp_path) == [("0?", "0"), ("1?", "1")]
    assert read(tmp_path, split="test") == [("one?", "1")]
    assert not is_single_file(TrainOptions(task="jsonl", data=str(tmp_path)))


def test_what_datasets_saved_to_disk_is_read(tmp_path):
    table = datasets.Dataset.from_list([VERL, {**VERL, "reward_model": {"style": "rule", "ground_truth": "3"}}])
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "several")
    assert [answer for _, answer in read(tmp_path / "one")] == ["2", "3"]
    assert [answer for _, answer in read(tmp_path / "several", split="test")] == ["3"]
    assert is_single_file(TrainOptions(task="jsonl", data=str(tmp_path / "one")))
    assert not is_single_file(TrainOptions(task="jsonl", data=str(tmp_path / "several")))
    assert "unknown split of" in refusal(tmp_path / "several", split="validation")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"broken")
    assert "saved by datasets, but cannot be read" in refusal(tmp_path / "one")


# --- repeated rows


def test_rows_that_repeat_an_earlier_one_are_dropped(tmp_path):
    again = [ROW, {"prompt": "two?", "answer": "2"}, ROW, {"prompt": "one?\r\n", "answer": " 1"}]
    path = put(tmp_path / "a.jsonl", *again)
    assert read(path) == [("one?", "1"), ("two?", "2")]
    assert loaded(path).notes == (f"2 rows repeat an earlier one and are left out, first {path}, record 3",)


def test_a_question_with_several_answers_is_kept_and_named(tmp_path):
    path = put(tmp_path / "a.jsonl", ROW, {"prompt": "one?", "answer": "2"})
    found = loaded(path)
    assert len(found.examples) == 2
    assert found.notes == (
        f"1 questions are asked again with another answer, first {path}, record 1 and {path}, record 2; each row is "
        "kept",
    )


def test_a_repeated_question_of_gsm8k_stops_nobody(tmp_path):
    other = {**GSM8K, "answer": "no, it is\n#### 1,201"}
    worded_otherwise = {**GSM8K, "answer": "another way\n#### 1200"}
    path = write(tmp_path / "test.jsonl", [GSM8K, {**GSM8K, "question": "Else?"}, worded_otherwise, other])
    found = loaded(path, get("gsm8k"), "test")
    assert sorted(example.answer for example in found.examples) == ["1200", "1200", "1201"]
    assert len({example.id for example in found.examples}) == 3
    assert found.notes[0] == f"1 rows repeat an earlier one and are left out, first {path}, record 3"
    assert f"first {path}, record 1 and {path}, record 4" in found.notes[1]


@pytest.mark.parametrize("name", ["gsm8k", "hotpotqa", "musique"])
def test_a_repeated_question_is_never_in_two_splits(tmp_path, name):
    records = [record for record in copies(name, 21) for _ in range(3)]
    if name == "gsm8k":
        records = [{**record, "answer": f"#### {n % 2}"} for n, record in enumerate(records)]
    splits = ("train", "validation") if name == "gsm8k" else ("validation", "test")
    path = write(tmp_path / FILES[name][splits[0]], records)
    one, other = ({e.prompt + e.id for e in loaded(path, get(name), s).examples} for s in splits)
    prompts = [{e.prompt if name == "gsm8k" else e.id for e in loaded(path, get(name), s).examples} for s in splits]
    assert prompts[0].isdisjoint(prompts[1])
    assert len(prompts[0] | prompts[1]) == 21
    assert one
    assert other


def test_a_row_that_asks_what_is_held_out_is_not_trained_on(tmp_path):
    rows = [{"prompt": f"{n}?", "answer": answer} for n in range(6) for answer in ("1", "2")]
    options = TrainOptions(task="jsonl", data=put(tmp_path / "a.jsonl", *rows), eval_every=1, eval_questions=3)
    held, rest = (load_data(options, split) for split in ("validation", "train"))
    assert len(held.examples) == 3
    asked = [{example.prompt for example in part.examples} for part in (held, rest)]
    assert asked[0].isdisjoint(asked[1])
    lost = len(rows) - len(held.examples) - len(rest.examples)
    assert lost == 2 * len(asked[0]) - 3 > 0
    assert rest.notes[-1] == f"{lost} rows ask what is held out for validation and are left out"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("café", "cafe\u0301", True),
        ("４２", "42", True),
        ("a\r\nb ", "a\nb", True),
        ("10²", "102", False),
        ("Ann", "ann", False),
        ("a  b", "a b", False),
    ],
)
def test_texts_are_compared_in_a_stated_form(one, other, same):
    assert (normalize_text(one) == normalize_text(other)) is same
    chats = ([{"role": "user", "content": text}] for text in (one, other))
    assert (normalize_prompt(next(chats)) == normalize_prompt(next(chats))) is same


# --- wording of one's own


@pytest.mark.parametrize(
    ("prompt", "system", "instruction", "expected"),
    [
        ("q", None, None, "q"),
        ("q", None, "End with a number.", "q\n\nEnd with a number."),
        ("q", "S", "I", [{"role": "system", "content": "S"}, {"role": "user", "content": "q\n\nI"}]),
        (
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Let us see: "}],
            "S",
            "I",
            [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "q\n\nI"},
                {"role": "assistant", "content": "Let us see: "},
            ],
        ),
        (CHAT, None, "I", [CHAT[0], {"role": "user", "content": "Capital of Italy?\n\nI"}]),
    ],
)
def test_system_message_and_an_instruction_stand_around_prompt(prompt, system, instruction, expected):
    before = json.dumps(prompt)
    assert add_instructions(Example(prompt, "1"), system, instruction).prompt == expected
    assert json.dumps(prompt) == before


def test_a_row_with_a_system_message_of_its_own_takes_no_other(tmp_path):
    options = TrainOptions(
        task="jsonl", data=put(tmp_path / "a.jsonl", {"prompt": CHAT, "answer": "Rome"}), system_prompt="Else."
    )
    with pytest.raises(QreditError, match="record 1: the row has a system message of its own"):
        load_data(options, "train")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"system_prompt": "S"}, "system_prompt: pocket-hotpot knows a few words only; its own wording is style=warm"),
        ({"instruction": "I"}, "instruction: pocket-hotpot knows"),
        ({"task": "gsm8k", "instruction": "I", "style": "warm"}, "instruction and style=warm both say how to answer"),
        ({"task": "gsm8k", "prompt_column": "q"}, "prompt_column names a column of task jsonl"),
        ({"task": "gsm8k", "aliases_column": "q"}, "aliases_column names a column of task jsonl"),
        ({"task": "jsonl", "system_prompt": "S", "chat": False}, "system_prompt needs the chat template"),
        ({"task": "jsonl", "instruction": "a\udcff"}, "instruction holds half a character"),
    ],
)
def test_wording_and_columns_that_would_not_be_used_are_refused(options, words):
    with pytest.raises(QreditError, match=words):
        TrainOptions(**options)


def test_an_official_data_set_takes_an_instruction_behind(tmp_path):
    path = put(tmp_path / "train.jsonl", *({"question": f"{n}?", "answer": "#### 1"} for n in range(30)))
    found = load_data(TrainOptions(task="gsm8k", data=path, instruction="Give the number.", system_prompt="S"), "train")
    system, user = found.examples[0].prompt
    assert system == {"role": "system", "content": "S"}
    assert user["content"].endswith("?\n\nGive the number.")


# --- what was trained on


def test_official_questions_that_were_trained_on_are_counted(tmp_path):
    """A file of another name than the official ones stands for any split: its questions may well be the run's."""
    facts = {"answer": "a", "answer_aliases": [], "paragraphs": [{"title": "t", "paragraph_text": "p"}]}
    path = put(tmp_path / "mine.jsonl", *({"id": f"{n}", "question": f"{n}?", **facts} for n in range(8)))
    run = TrainOptions(task="musique", data=path, hold_out=2, passages="none")
    asked = TrainOptions(task="musique", data=path, style="warm")
    examples = load_data(asked, "test").examples
    trained = {example.id for example in load_data(run, "train").examples}
    assert len(trained) == 6
    assert count_trained_on(examples, asked, run) == len(trained & {example.id for example in examples}) > 0
    assert count_trained_on(examples, replace(asked, task="hotpotqa"), run) is None


@pytest.mark.e2e
def test_questions_that_a_run_was_trained_on_are_counted(tmp_path):
    path = put(tmp_path / "a.jsonl", *({"prompt": f"{n}?", "answer": "1"} for n in range(8)))
    run = TrainOptions(task="jsonl", data=path, eval_every=1, eval_questions=3, system_prompt="S")
    asked = TrainOptions(task="jsonl", data=path)
    examples = load_data(asked, "test").examples
    assert count_trained_on(examples, asked, run) == 5
    assert count_trained_on(examples, asked, TrainOptions(task="jsonl", data=str(tmp_path / "gone.jsonl"))) is None
    assert count_trained_on(examples, asked, None) is None


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("test", "x/alias.jsonl", True, 8, 8), "all 8 rows of alias.jsonl, 8 of them trained on"),
        (("test", "x/alias.jsonl", False, 3, 0), "first 3 rows of alias.jsonl"),
        (("test", None, True, 8, None), "test"),
        (("test", None, True, 8, 2), "test, 2 of them trained on"),
    ],
)
def test_what_was_asked_is_named_truthfully(arguments, name):
    assert describe_questions(*arguments) == name


# --- at the command line, and in a trainer's data set


@pytest.mark.parametrize("command", ["train", "eval", "probe"])
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": f"Who is {HALF}?", "answer": "1"}, "field 'prompt' holds half a character"),
        ({"prompt": "Who?", "answer": f"{HALF}"}, "field 'answer' holds half a character"),
        ({"prompt": "Who?", "answer": "1", "reward_model": {}}, "no field 'reward_model.ground_truth'"),
    ],
)
def test_a_row_that_cannot_be_used_is_one_line_and_status_2(tmp_path, capsys, command, row, words):
    from qredit.cli.main import main

    path = put(tmp_path / "a.jsonl", ROW, row)
    column = ["--answer-column", "reward_model.ground_truth"] if "reward_model" in row else []
    rows = put(tmp_path / "b.jsonl", {**ROW, "reward_model": {"ground_truth": "1"}}, row) if column else path
    output = ["--output", str(tmp_path / "run")] if command == "train" else []
    model = ["--model", str(model_folder(tmp_path / "model"))]
    capsys.readouterr()
    assert main([command, "--task", "jsonl", "--data", rows, *column, *output, *model]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"qredit: {rows}, record 2: ")
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


NAMED = "{% for m in messages %}{% if m.name is defined %}({{ m.name }}) {% endif %}{{ m.content }}{% endfor %}"


def test_messages_render_alike_with_keys_that_arrow_added():
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = NAMED
    tokens = TokenFormat(Format.of(tokenizer), tokenizer)
    chats = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b", "name": "Ann"}]]
    column = datasets.Dataset.from_dict({"prompt": chats, "answer": ["1", "2"]})
    assert column["prompt"][0] != chats[0]  # what Arrow makes of it
    encoded, _ = encode_examples(column, "answer", tokens, TokenBudget(8, 3), None, False, {}, "rows")
    assert encoded["prompt_ids"] == [tokens.prompt_ids(chat) for chat in chats]
    assert "None" not in tokenizer.decode(encoded["prompt_ids"][0])


def test_a_data_set_of_verl_and_lists_of_answers_are_encoded():
    tokens = TokenFormat(Format.of(tokenizer()), tokenizer())
    rows = {"prompt": ["1?", "2?"], "reward_model": [{"ground_truth": ["1", "one"]}, {"ground_truth": ["2"]}]}
    column = datasets.Dataset.from_dict(rows)
    check_columns(column, "reward_model.ground_truth", "rows")
    encoded, _ = encode_examples(
        column, "reward_model.ground_truth", tokens, TokenBudget(8, 3), None, False, {}, "rows"
    )
    assert (encoded["answer"], encoded["aliases"]) == (["1", "2"], [["one"], []])
    assert encoded["answer_ids"] == [tokens.answer_ids(answer) for answer in ("1", "2")]
    with pytest.raises(QreditError, match=r"rows, row 0: no 'truth' inside column 'reward_model'; it holds: ground_"):
        encode_examples(column, "reward_model.truth", tokens, TokenBudget(8, 3), None, False, {}, "rows")


@pytest.mark.parametrize(("answers", "texts"), [([13.0, None, 7.0], None), ([13.0, 0.5, 7.0], ["13", "0.5", "7"])])
def test_floats_of_a_data_set_that_are_whole_are_integers(answers, texts):
    tokens = TokenFormat(Format.of(tokenizer()), tokenizer())
    column = datasets.Dataset.from_dict({"prompt": ["1?", "2?", "3?"], "answer": answers})
    if texts is None:
        with pytest.raises(QreditError, match="rows, row 1: the answer must be"):
            encode_examples(column, "answer", tokens, TokenBudget(8, 3), None, False, {}, "rows")
    else:
        encoded, _ = encode_examples(column, "answer", tokens, TokenBudget(8, 3), None, False, {}, "rows")
        assert encoded["answer"] == texts


@pytest.mark.e2e
def test_an_evaluation_names_its_rows_and_dry_run_shows_wording(tmp_path, capsys):
    from qredit.cli.main import main

    folder = model_folder(tmp_path / "model", chat=True)
    path = put(tmp_path / "alias.jsonl", *({"question": f"{n}?", "answer": [str(n), "x"]} for n in range(4)))
    short = flags(task="jsonl", data=path, model=folder, system_prompt="Be brief.", instruction="Now.", **SHORT)
    assert main(["train", "--dry-run", "--json", *short]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert all("Be brief." in prompt and "?\n\nNow." in prompt for prompt in plan["prompts"])
    assert plan["data_notes"] == ["prompts are column 'question', answers column 'answer'"]
    assert main(["train", "--quiet", *short, "--output", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["eval", "--json", "--quiet", *flags(model=tmp_path / "run", data=path, k=2)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["split"], found["rows_of"], found["trained_on"]) == (None, path, 4)
    official = write(tmp_path / "test.jsonl", [GSM8K])
    assert main(["eval", "--json", "--quiet", *flags(model=tmp_path / "run", task="gsm8k", data=official, k=2)]) == 0
    found = json.loads(capsys.readouterr().out)  # the wording of own rows is not for other tasks
    assert (found["task"], found["split"], found["rows_of"]) == ("gsm8k", "test", None)
    assert main(["eval", *flags(model=tmp_path / "run", split="train", k=2, limit=3)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "first 3 rows of alias.jsonl, 3 of them trained on" in shown


# --- what occurs twice


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Who wrote 'Emma'?", "who wrote  Emma", True),
        ("Name it: (now).", "name it now", True),
        ("What is 3.5?", "What is 35?", False),
        ("What is 3 - 4?", "What is 3 4?", False),
        ("What is 3-4?", "What is 34?", False),
        ("Wo ist die STRASSE?", "wo ist die straße", True),
    ],
)
def test_prompts_that_are_nearly_the_same(one, other, same):
    assert (normalize_loosely(one) == normalize_loosely(other)) is same


def asked(*prompts):
    return [Example(prompt, "1", id=str(number)) for number, prompt in enumerate(prompts)]


def test_overlaps_in_training_and_with_held_out_rows_count():
    trained = asked("One?", "Two?", "one", "One?", [{"role": "user", "content": "Six?"}])
    held = asked("three", "two", "TWO?", "Two?", [{"role": "user", "content": "six"}], "Six?")
    found = count_overlap(trained, held)
    assert found == Overlap(5, 1, 2, 6, 1, 4, first="1")
    assert found.describe() == (
        "2 of 5 training prompts repeat an earlier one (1 of them letter for letter, the others but for case and "
        "punctuation); 4 of 6 held-out prompts are trained on, first '1' (1 of them letter for letter, the others but "
        "for case and punctuation)"
    )
    assert count_overlap(trained[:2], held[:1]).describe() is None


def test_files_beside_the_training_data_are_held_out(tmp_path):
    for split, count in (("train", 6), ("validation", 3), ("test", 2)):
        put(tmp_path / f"{split}.jsonl", *({"prompt": f"{split} {n}", "answer": "1"} for n in range(count)))
    options = TrainOptions(task="jsonl", data=str(tmp_path))
    assert len(load_held_out(options)) == 5
    assert len(load_held_out(replace(options, eval_every=1))) == 5
    (tmp_path / "test.jsonl").write_text("no json")
    assert len(load_held_out(options)) == 3
    alone = replace(options, data=str(tmp_path / "train.jsonl"))
    assert load_held_out(alone) == []
    assert len(load_held_out(replace(alone, hold_out=2))) == 2
    assert load_held_out(TrainOptions()) == []
