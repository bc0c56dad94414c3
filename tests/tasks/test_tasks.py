"""Tasks on small records in the official schemas: what is shown, what is asked for, and what a broken file says."""

import csv
import gzip
import json
import random
from dataclasses import replace

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qredit import rewards
from qredit.runs.load import load_examples
from qredit.runs.options import TrainOptions
from qredit.tasks import REGISTRY, get
from qredit.tasks.base import Example, sort_by_hash
from qredit.tasks.jsonl import make_jsonl_task
from qredit.utils.errors import QreditError

FINQA = {
    "pre_text": ["sales rose .", "prices fell ."],
    "post_text": ["see note 3 ."],
    "filename": "ACME/2010/page_7.pdf",
    "table_ori": [["", "2010", "2009"], ["Sales", "$ 57", "$ 50"]],
    "table": [["", "2010", "2009"], ["sales", "$ 57", "$ 50"]],
    "id": "ACME/2010/page_7.pdf-1",
    "qa": {
        "question": "what was the growth of sales?",
        "answer": "14%",
        "explanation": "",
        "ann_table_rows": [1],
        "ann_text_rows": [],
        "steps": [],
        "program": "subtract(57, 50), divide(#0, 50)",
        "gold_inds": {"table_1": "sales ..."},
        "exe_ans": 0.14,
        "program_re": "divide(subtract(57, 50), 50)",
    },
}
FINQA_HUB = {
    **{name: FINQA[name] for name in ("id", "filename", "pre_text", "post_text", "table", "table_ori")},
    **{name: FINQA["qa"][name] for name in ("question", "answer", "explanation", "program", "program_re")},
    "exe_ans": "0.14",
    "gold_inds": ["table_1"],
}
HOTPOT = {
    "_id": "5a7a06935542990198eaf050",
    "question": "Which tower is taller?",
    "answer": "Iron Tower",
    "supporting_facts": [["Iron Tower", 0], ["Stone Tower", 1]],
    "context": [
        ["Iron Tower", ["The Iron Tower is in Aville.", " It is 300 m tall."]],
        ["Stone Tower", ["The Stone Tower is old.", " It is 90 m tall."]],
    ],
    "type": "comparison",
    "level": "easy",
}
HOTPOT_HUB = {
    "id": HOTPOT["_id"],
    "question": HOTPOT["question"],
    "answer": HOTPOT["answer"],
    "type": "comparison",
    "level": "easy",
    "supporting_facts": {"title": ["Iron Tower", "Stone Tower"], "sent_id": [0, 1]},
    "context": {
        "title": [title for title, _ in HOTPOT["context"]],
        "sentences": [sentences for _, sentences in HOTPOT["context"]],
    },
}
MUSIQUE = {
    "id": "2hop__1_2",
    "paragraphs": [
        {"idx": 0, "title": "Bee", "paragraph_text": "Bee was born\nin Ceeton.", "is_supporting": True},
        {"idx": 1, "title": "Ceeton", "paragraph_text": "Ceeton lies in Dee.", "is_supporting": True},
    ],
    "question": "In which country was Bee born?",
    "question_decomposition": [{"id": 1, "question": "Bee >> birth", "answer": "Ceeton", "paragraph_support_idx": 0}],
    "answer": "Dee",
    "answer_aliases": ["Republic of Dee"],
    "answerable": True,
}
GSM8K = {"question": "Ann has 600 boxes of 2. How many?", "answer": "600*2 = <<600*2=1200>>1,200\n#### 1,200"}

FILES = {
    "finqa": {"train": "train.json", "validation": "dev.json", "test": "test.json"},
    "hotpotqa": {
        "train": "hotpot_train_v1.1.json",
        "validation": "hotpot_dev_distractor_v1.json",
        "test": "hotpot_dev_distractor_v1.json",
    },
    "musique": {
        "train": "musique_ans_v1.0_train.jsonl",
        "validation": "musique_ans_v1.0_dev.jsonl",
        "test": "musique_ans_v1.0_dev.jsonl",
    },
    "gsm8k": {"train": "train.jsonl", "validation": "train.jsonl", "test": "test.jsonl"},
}
WARM_ENDINGS = {
    "finqa": "a percent sign if it is a percentage, or yes or no.",
    "hotpotqa": "a name, a date, a number, or yes or no.",
    "musique": "a name, a date, a number, or yes or no.",
    "gsm8k": "as one number without its unit.",
}
RECORDS = {"finqa": FINQA, "hotpotqa": HOTPOT, "musique": MUSIQUE, "gsm8k": GSM8K}


def write(path, records):
    lines = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(records), encoding="utf-8")
    return str(path)


def copies(name, count):
    """`count` records of a task that differ in what makes their id."""
    field = {"hotpotqa": "_id", "gsm8k": "question"}.get(name, "id")
    return [{**RECORDS[name], field: f"{name} {i}"} for i in range(count)]


def one(name, tmp_path, record, style="cold"):
    path = write(tmp_path / FILES[name]["train"], [record])
    (example,) = get(name).load(path, "train", style)
    return example


# --- the official data sets


@pytest.mark.parametrize(
    ("name", "prompt", "answer", "aliases"),
    [
        (
            "finqa",
            "sales rose . prices fell .\n | 2010 | 2009\nsales | $ 57 | $ 50\nsee note 3 .\n"
            "what was the growth of sales?",
            "14%",
            ("0.14",),
        ),
        (
            "hotpotqa",
            "Iron Tower: The Iron Tower is in Aville. It is 300 m tall.\n"
            "Stone Tower: The Stone Tower is old. It is 90 m tall.\nWhich tower is taller?",
            "Iron Tower",
            (),
        ),
        (
            "musique",
            "Bee: Bee was born in Ceeton.\nCeeton: Ceeton lies in Dee.\nIn which country was Bee born?",
            "Dee",
            ("Republic of Dee",),
        ),
        ("gsm8k", "Ann has 600 boxes of 2. How many?", "1200", ()),
    ],
)
def test_a_cold_prompt_is_input_alone_and_a_warm_one_says_more(tmp_path, name, prompt, answer, aliases):
    cold = one(name, tmp_path, RECORDS[name])
    warm = one(name, tmp_path, RECORDS[name], "warm")
    assert (cold.prompt, cold.answer, cold.aliases) == (prompt, answer, aliases)
    assert (warm.answer, warm.aliases, warm.id) == (answer, aliases, cold.id)
    *context, question = prompt.split("\n")
    assert "\n".join(context) in warm.prompt
    assert f"Question: {question}" in warm.prompt
    assert warm.prompt.endswith(WARM_ENDINGS[name])
    assert "final answer" not in cold.prompt


THIRD = ["Wood Tower", ["Nobody knows how tall it is."]]
HOTPOT_3 = {**HOTPOT, "context": [THIRD, *HOTPOT["context"]]}
HOTPOT_HUB_3 = {
    **HOTPOT_HUB,
    "context": {"title": [t for t, _ in HOTPOT_3["context"]], "sentences": [s for _, s in HOTPOT_3["context"]]},
}
MUSIQUE_3 = {
    **MUSIQUE,
    "paragraphs": [
        {"idx": 2, "title": "Eff", "paragraph_text": "Eff is a river.", "is_supporting": False},
        *MUSIQUE["paragraphs"],
    ],
}


@pytest.mark.parametrize(
    ("name", "record", "whole"),
    [("hotpotqa", HOTPOT_3, HOTPOT), ("hotpotqa", HOTPOT_HUB_3, HOTPOT), ("musique", MUSIQUE_3, MUSIQUE)],
    ids=["hotpotqa", "hotpotqa on the Hub", "musique"],
)
@pytest.mark.parametrize("style", ["cold", "warm"])
def test_a_prompt_shows_all_passages_or_the_supporting_or_none(tmp_path, name, record, whole, style):
    path = write(tmp_path / FILES[name]["train"], [record])
    prompts = {}
    for passages in ("all", "supporting", "none"):
        (example,) = get(name).show_passages(passages).load(path, "train", style)
        prompts[passages] = example.prompt
        assert replace(example, prompt="") == replace(one(name, tmp_path, whole, style), prompt="")
    few = one(name, tmp_path, whole, "cold").prompt
    *passages, question = few.split("\n")
    cold = style == "cold"
    assert prompts["none"] == question if cold else f"\n\nQuestion: {question}\n\n" in prompts["none"]
    assert prompts["supporting"] == few if cold else "\n".join(passages) + "\n\nQ" in prompts["supporting"]
    assert len({len(prompt.split(": ")) for prompt in prompts.values()}) == 3
    assert ("passages" in prompts["none"], "do not matter" in prompts["supporting"]) == (False, False)


def test_passages_that_cannot_be_told_apart_are_refused(tmp_path):
    hotpot = [HOTPOT, {name: value for name, value in HOTPOT.items() if name != "supporting_facts"}]
    musique = [{**MUSIQUE, "paragraphs": [{"title": "a", "paragraph_text": "b"}]}]
    for name, records, words in [
        ("hotpotqa", hotpot, "record 2: no field 'supporting_facts'"),
        ("hotpotqa", [{**HOTPOT, "supporting_facts": [["Else", 0]]}], "record 1: 'supporting_facts' names no passage"),
        ("musique", musique, "record 1: none of the 'paragraphs' is marked by 'is_supporting'"),
    ]:
        path = write(tmp_path / FILES[name]["train"], records)
        assert len(get(name).show_passages("none").load(path, "train", "cold")) == 1
        with pytest.raises(QreditError, match=words):
            get(name).show_passages("supporting").load(path, "train", "cold")


def test_a_task_without_passages_has_none_to_choose_from(tmp_path):
    assert get("gsm8k").show_passages("all") is get("gsm8k")
    with pytest.raises(QreditError, match="passages 'none': the prompts of task gsm8k have no passages"):
        TrainOptions(task="gsm8k", passages="none")
    path = write(tmp_path / FILES["musique"]["train"], [MUSIQUE])
    (asked,) = load_examples(TrainOptions(task="musique", passages="none", data=path), "train")
    assert asked.prompt == MUSIQUE["question"]


@pytest.mark.parametrize(
    ("annotated", "executed", "answers"),
    [
        ("14%", 0.14136, ("14%", "0.14136")),
        ("", 0.14136, ("0.14136",)),
        (" ", 380.0, ("380",)),
        ("380", 380.0, ("380",)),
        ("380", "380.0", ("380",)),
        ("", "yes", ("yes",)),
        ("", 1e-05, ("0.00001",)),
        ("1,200", 1200, ("1,200", "1200")),
        (None, -100.0, ("-100",)),
    ],
)
def test_finqas_annotated_answer_comes_before_the_executed(tmp_path, annotated, executed, answers):
    record = {**FINQA, "qa": {**FINQA["qa"], "answer": annotated, "exe_ans": executed}}
    example = one("finqa", tmp_path, record)
    assert (example.answer, *example.aliases) == answers


def test_a_finqa_page_without_text_leaves_no_blank_line(tmp_path):
    example = one("finqa", tmp_path, {**FINQA, "pre_text": [], "post_text": [""]})
    assert example.prompt == " | 2010 | 2009\nsales | $ 57 | $ 50\nwhat was the growth of sales?"


def test_unanswerable_musique_questions_are_left_out(tmp_path):
    records = [MUSIQUE, {**MUSIQUE, "id": "2hop__3_4", "answerable": False}]
    path = write(tmp_path / "musique_full_v1.0_train.jsonl", records)
    assert [example.id for example in get("musique").load(path, "train", "cold")] == ["2hop__1_2"]


def test_a_gsm8k_answer_without_its_mark_is_named(tmp_path):
    path = write(tmp_path / "train.jsonl", [GSM8K, {**GSM8K, "answer": "1200"}])
    with pytest.raises(QreditError, match=r"train.jsonl, record 2: no '####'"):
        get("gsm8k").load(path, "train", "cold")


# --- the Hub's schemas


@pytest.fixture
def hub(monkeypatch):
    """A Hub that holds one record; what was asked of it is in the list."""
    asked = []

    def serve(record):
        def load_dataset(path, name=None, *, split):
            asked.append((path, name, split))
            return datasets.Dataset.from_list([record])

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve


@pytest.mark.parametrize(
    ("name", "record", "asked"),
    [
        ("finqa", FINQA_HUB, ("rootsautomation/FinQA", None, "train")),
        ("hotpotqa", HOTPOT_HUB, ("hotpotqa/hotpot_qa", "distractor", "train")),
        ("musique", MUSIQUE, ("dgslibisey/MuSiQue", None, "train")),
        ("gsm8k", GSM8K, ("openai/gsm8k", "main", "train")),
    ],
)
@pytest.mark.parametrize("style", ["cold", "warm"])
def test_hub_copy_gives_the_same_example_as_the_official_file(tmp_path, hub, name, record, asked, style):
    calls = hub(record)
    assert get(name).load(None, "train", style) == [one(name, tmp_path, RECORDS[name], style)]
    assert calls == [asked]


def test_a_hub_split_without_labels_is_cut_from_another(hub):
    calls = hub(HOTPOT_HUB)
    get("hotpotqa").load("someone/hotpot", "test", "cold")
    calls = hub(GSM8K)
    get("gsm8k").load("someone/gsm8k:main", "validation", "cold")
    assert calls == [("someone/hotpot", None, "validation"), ("someone/gsm8k", "main", "train")]


def test_misspelt_field_of_a_hub_record_is_named_with_data_set(hub):
    record = {("anwser" if name == "answer" else name): value for name, value in HOTPOT_HUB.items()}
    hub(record)
    with pytest.raises(QreditError, match="someone/hotpot, record 1: no field 'answer'; did you mean 'anwser'"):
        get("hotpotqa").load("someone/hotpot", "train", "cold")


def test_a_data_set_that_cannot_be_loaded_says_why_in_one_line(monkeypatch):
    def load_dataset(path, name=None, *, split):
        raise ValueError("Unknown split 'test'.\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(QreditError, match=r"'a/b' is no file or folder.*test.*ValueError: Unknown split 'test'\.$"):
        get("jsonl").load("a/b", "test", "cold")


# --- splits and subsets


@pytest.mark.parametrize("name", ["hotpotqa", "musique", "gsm8k"])
def test_carved_splits_are_disjoint_whole_and_without_order(tmp_path, name):
    records = copies(name, 101)
    for split in ("train", "validation", "test"):
        write(tmp_path / FILES[name][split], records)
    task = get(name)
    parts = ("train", "validation") if name == "gsm8k" else ("validation", "test")
    split_ids = [[example.id for example in task.load(str(tmp_path), part, "cold")] for part in parts]
    assert [len(ids) for ids in split_ids] == ([96, 5] if name == "gsm8k" else [51, 50])
    whole = task.load(str(tmp_path), "test" if name == "gsm8k" else "train", "cold")
    assert sorted(split_ids[0] + split_ids[1]) == sorted(example.id for example in whole)
    random.Random(0).shuffle(records)
    for split in ("train", "validation", "test"):
        write(tmp_path / FILES[name][split], records)
    assert [[example.id for example in task.load(str(tmp_path), part, "cold")] for part in parts] == split_ids


@given(st.permutations(range(12)), st.integers(0, 12))
def test_a_subset_is_first_in_hash_order_whatever_order_of_file(order, limit):
    examples = [Example("q", "a", id=str(i)) for i in range(12)]
    assert sort_by_hash([examples[i] for i in order])[:limit] == sort_by_hash(examples)[:limit]


def test_hash_order_is_the_order_of_sha256():
    """sha256 of "a" begins ca97, of "b" 3e23, of "c" 2e7d."""
    assert [example.id for example in sort_by_hash([Example("q", "a", id=id) for id in "abc"])] == ["c", "b", "a"]


def test_a_limit_keeps_the_start_of_the_whole(tmp_path):
    path = write(tmp_path / "train.json", copies("finqa", 20))
    whole = get("finqa").load(path, "train", "cold")
    assert get("finqa").load(path, "train", "cold", limit=7) == whole[:7]


@pytest.mark.parametrize("name", FILES)
def test_each_split_is_read_from_its_official_file(tmp_path, name):
    for i, file in enumerate(sorted(set(FILES[name].values()))):
        write(tmp_path / file, copies(name, 40)[i::3])
    for split, file in FILES[name].items():
        from_folder = get(name).load(str(tmp_path), split, "cold")
        assert from_folder
        assert from_folder == get(name).load(str(tmp_path / file), split, "cold")


def test_the_file_of_another_split_is_refused(tmp_path):
    path = write(tmp_path / "hotpot_dev_distractor_v1.json", [HOTPOT])
    with pytest.raises(QreditError, match="is the validation and test split; for train, give hotpot_train_v1.1.json"):
        get("hotpotqa").load(path, "train", "cold")


# --- broken data


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("finqa", {k: v for k, v in FINQA.items() if k != "table"}, "no field 'table'; did you mean 'table_ori'"),
        (
            "finqa",
            {**FINQA, "qa": {"question": "q", "exe_answer": 1}},
            "no field 'qa.exe_ans'; did you mean 'exe_answer'? There are: exe_answer, question",
        ),
        ("finqa", {**FINQA, "qa": "what?"}, "field 'qa.question' is missing: the part before 'question'"),
        ("hotpotqa", {**HOTPOT, "answer": None}, "field 'answer' is null"),
        ("musique", {"id": "x"}, "no field 'question'; There are: id"),
        ("musique", {**MUSIQUE, "id": 7}, "field 'id' must be text, not int"),
        ("musique", {**MUSIQUE, "answer_aliases": "Dee"}, "field 'answer_aliases' must be a list of texts"),
        ("musique", {**MUSIQUE, "paragraphs": ["Bee"]}, "field 'paragraphs' must be a list of objects, each with"),
        ("musique", {**MUSIQUE, "paragraphs": [{"title": "Bee"}]}, "field 'paragraphs' must be a list of objects"),
        ("gsm8k", ["question"], "an object with named fields was expected, not list"),
    ],
)
def test_a_broken_record_is_named_by_file_number_and_field(tmp_path, name, record, message):
    path = write(tmp_path / FILES[name]["train"], [RECORDS[name], record])
    with pytest.raises(QreditError) as caught:
        get(name).load(path, "train", "cold")
    assert f"{path}, record 2: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named_with_what_was_looked_for(tmp_path):
    (tmp_path / "other.txt").write_text("")
    for source, message in [
        (str(tmp_path), "no train.json in .*; it holds: other.txt"),
        (str(tmp_path / "none.json"), "no file or folder '.*none.json'; looked for a folder with train.json, dev.json"),
        ("nowhere", "no file or folder 'nowhere'"),
        ("nowhere/train.json", "no file or folder 'nowhere/train.json'"),
        (str(tmp_path / "other.txt"), "cannot read '.txt' files; choices: .jsonl, .json, .csv, .parquet"),
    ]:
        with pytest.raises(QreditError, match=message):
            get("finqa").load(source, "train", "cold")
    (tmp_path / "mine.json").write_text("[]")
    with pytest.raises(
        QreditError, match=r"holds: mine.json, other.txt; if the records are in that file, give --data /"
    ):
        get("finqa").load(str(tmp_path), "train", "cold")
    (tmp_path / "mine.json").rename(tmp_path / "dev.json")
    with pytest.raises(QreditError, match=r"holds: dev.json, other.txt$"):
        get("finqa").load(str(tmp_path), "train", "cold")
    with pytest.raises(QreditError, match="no data given: name a folder with train.jsonl"):
        get("jsonl").load(None, "train", "cold")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.jsonl", b'{"prompt": "q", "answer": "a"}\n\n{"prompt": \n', "a.jsonl, line 3: not JSON"),
        ("a.json", b'[{"prompt": "q"},\n {"prompt" "q"}]', "a.json, line 2: not JSON"),
        ("a.json", b'{"a": 1}', "a list of records was expected, not dict"),
        ("a.csv", b'prompt,answer\nq,"a', "a.csv, after line 1: not CSV"),
        ("a.csv", b"prompt,answer\nwell, then,a\n", "record 1: more cells than the header names"),
        ("a.parquet", b"PAR", "a.parquet: not Parquet that can be read"),
        ("a.jsonl", b"", "a.jsonl: empty, there are no records"),
        ("a.json", b"  ", "a.json: empty"),
        ("a.json", b"[]", "a.json: empty"),
        ("a.csv", b"prompt,answer\n", "a.csv: empty"),
        ("a.jsonl", b'{"a": 1}\n\xff', "a.jsonl, line 2: not UTF-8 text (invalid start byte); save it as UTF-8"),
        ("a.jsonl", b"\xff\xfe\x00", "a.jsonl, line 1: not UTF-16 text"),
        ("a.csv", b"prompt,answer\nq,a\0b\n", "a.csv, line 2: a NUL byte"),
        ("a.json", b'{"prompt": "q", \n "prompt": "r"}', "a.json: the key 'prompt' occurs twice in one object"),
        ("a.jsonl", b'{"a": 1}\n{"prompt": "q", "prompt": "r"}', "a.jsonl, line 2: the key 'prompt' occurs twice"),
        ("a.jsonl", b'{"answer": ' + b"[" * 9**6, "a.jsonl, line 1: JSON that is nested too deeply"),
        (
            "a.jsonl",
            b'{"answer": ' + b"1" * 5000 + b"}",
            "a.jsonl, line 1: an integer of 5000 digits; write it as text",
        ),
        ("a.jsonl", b'{\n "prompt": "q"\n}', "a.jsonl, line 1: not JSON (Expecting property name"),
        ("a.jsonl", b'[{"prompt": "q"}\n', "a.jsonl, line 2: not JSON"),
        ("a.json", b'{"data": [{"prompt": "q"}]}', "put the list inside 'data' into a file of its own"),
        ("a.csv", b"prompt,answer\nq\n", "a.csv, record 1: 1 cells, but the header names 2"),
        ("a.csv", b"prompt,prompt\nq,q\n", "a.csv: the header names column 'prompt' twice"),
        ("a.csv", b"prompt;answer\nq;a\n", "a.csv: cells are separated by ';'; commas are expected"),
        ("a.jsonl.gz", b"{}", "a.jsonl.gz: not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "q"}', mtime=0)[:-9], "a.jsonl.gz: not a whole gzip file"),
        ("a.jsonl.zst", b"", "a.jsonl.zst: cannot read '.zst' files; unpack it first; choices: .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(QreditError) as caught:
        get("jsonl").load(str(tmp_path / file), "train", "cold")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repeated_ids_and_empty_answers_are_counted(tmp_path):
    other = {**FINQA, "pre_text": ["sales fell ."]}
    path = write(tmp_path / "train.json", [FINQA, other])
    with pytest.raises(QreditError) as caught:
        get("finqa").load(path, "train", "cold")
    assert str(caught.value) == (
        "finqa: 1 ids occur more than once with different rows, first 'ACME/2010/page_7.pdf-1' "
        f"({path}, record 1; {path}, record 2)"
    )
    empty = {**HOTPOT, "answer": " "}
    with pytest.raises(QreditError, match="hotpotqa: 1 of 1 answers are empty"):
        get("hotpotqa").load(write(tmp_path / "hotpot.json", [empty]), "train", "cold")


# --- the user's own rows

ROWS = [
    {"prompt": "one, or “two”?", "answer": "1", "id": "x", "aliases": ["one"]},
    {"prompt": "line\nbreak\u2028?", "answer": "007", "id": "y", "aliases": []},
]


def write_rows(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        text = "\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]"
        path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_kind_of_file_gives_same_examples_in_both_styles(tmp_path, kind):
    rows = [{**row, "aliases": "".join(row["aliases"])} for row in ROWS] if kind == "csv" else ROWS  # no lists in CSV
    path = write_rows(tmp_path / f"rows.{kind}", rows)
    expected = sort_by_hash([Example(row["prompt"], row["answer"], row["id"], tuple(row["aliases"])) for row in ROWS])
    assert get("jsonl").load(path, "train", "cold") == expected
    assert get("jsonl").load(path, "test", "warm") == expected


def test_a_folder_holds_one_file_per_split_of_any_kind(tmp_path):
    write_rows(tmp_path / "train.jsonl", ROWS)
    write_rows(tmp_path / "test.parquet", ROWS[:1])
    assert len(get("jsonl").load(str(tmp_path), "train", "cold")) == 2
    assert len(get("jsonl").load(str(tmp_path), "test", "cold")) == 1
    with pytest.raises(QreditError, match=r"no validation.jsonl or validation.json or validation.csv or .*; it holds"):
        get("jsonl").load(str(tmp_path), "validation", "cold")


def test_an_answer_column_may_be_renamed_and_others_missing(tmp_path):
    path = write_rows(
        tmp_path / "rows.jsonl",
        [{"prompt": "q", "solution": 42, "aliases": None}, {"prompt": "q", "solution": 0.5, "id": ""}],
    )
    examples = sorted(make_jsonl_task(answer="solution").load(path, "train", "cold"), key=lambda example: example.id)
    assert examples == [Example("q", "42", "1"), Example("q", "0.5", "2")]
    with pytest.raises(QreditError, match="record 1: no field 'anwser'; There are: aliases, prompt, solution"):
        make_jsonl_task(answer="anwser").load(path, "train", "cold")


@pytest.mark.parametrize("answer", [None, "", "  ", True, [], ["a", ""], [["a"]], {"a": 1}, float("nan")])
def test_an_answer_no_text_and_no_number_is_refused(tmp_path, answer):
    path = write_rows(tmp_path / "rows.jsonl", [ROWS[0], {"prompt": "q", "answer": answer}])
    with pytest.raises(QreditError, match=r"rows.jsonl, record 2: field 'answer'"):
        get("jsonl").load(path, "train", "cold")


def test_an_answer_may_be_one_assistant_message(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "answer": [{"role": "assistant", "content": "42"}]}])
    assert [example.answer for example in get("jsonl").load(path, "train", "cold")] == ["42"]
    path = write_rows(tmp_path / "user.jsonl", [{"prompt": "q", "answer": [{"role": "user", "content": "42"}]}])
    with pytest.raises(QreditError, match="record 1: field 'answer' must be"):
        get("jsonl").load(path, "train", "cold")


@pytest.mark.parametrize("row", [{"prompt": " "}, {"prompt": [{"role": "user"}]}, {"aliases": [{}]}])
def test_prompts_and_aliases_of_another_kind_are_refused(tmp_path, row):
    path = write_rows(tmp_path / "rows.jsonl", [{**ROWS[0], **row}])
    with pytest.raises(QreditError, match=f"record 1: field '{next(iter(row))}' must be"):
        get("jsonl").load(path, "train", "cold")


# --- the registry


@pytest.mark.parametrize("task", REGISTRY.values(), ids=lambda task: task.name)
def test_every_task_is_rewarded_by_scorers_that_exist(task):
    assert get(task.name) is task
    assert task.reward in rewards.REGISTRY
    assert task.metrics
    assert set(task.metrics) <= set(rewards.REGISTRY)


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(QreditError, match="unknown task 'hotpot'; did you mean 'hotpotqa'"):
        get("hotpot")
