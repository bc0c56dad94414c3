"""`qredit verl-data`: any task's examples as the parquet that verl reads; it needs no verl."""

import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from qredit import tasks
from qredit.cli import main
from qredit.cli.verl_data_command import read_data_options
from qredit.runs.load import load_data
from qredit.runs.options import TrainOptions
from qredit.runs.verl_data import make_verl_table, write_verl_data
from qredit.tasks.base import Example
from qredit.utils import extras
from qredit.utils.errors import QreditError
from tests.support.folders import data_file, rows

STAR = "path-star(degree=2, length=3, size=8)"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of Italy?"}]


def read(path):
    return pyarrow.parquet.read_table(path).to_pylist()


def written(tmp_path, records, **options):
    """The rows of train.parquet, made of these records."""
    chosen = TrainOptions(task="jsonl", data=str(data_file(tmp_path / "own.jsonl", records)), **options)
    return read(write_verl_data(chosen, tmp_path / "out")[0].file)


def test_each_example_is_a_row_in_its_order(tmp_path):
    options = TrainOptions(task=STAR, subset="3")
    train, validation = write_verl_data(options, tmp_path)
    examples = load_data(options, "train", 3).examples
    assert (train.rows, validation.rows > 0) == (3, True)
    assert read(train.file) == [
        {
            "data_source": STAR,
            "prompt": [{"role": "user", "content": one.prompt}],
            "reward_model": {"style": "rule", "ground_truth": one.answer},
            "extra_info": {"split": "train", "index": row, "id": one.id, "aliases": list(one.aliases)},
        }
        for row, one in enumerate(examples)
    ]
    assert {row["extra_info"]["split"] for row in read(validation.file)} == {"validation"}
    assert tasks.get(read(train.file)[0]["data_source"]).reward  # so its reward can be found again


def test_aliases_messages_and_further_columns_are_kept(tmp_path):
    record = {"prompt": CHAT, "answer": "Rome", "aliases": ["Roma", "ROME"], "level": 3}
    assert written(tmp_path, [record]) == [
        {
            "data_source": "jsonl",
            "prompt": CHAT,
            "reward_model": {"style": "rule", "ground_truth": "Rome"},
            "extra_info": {
                "split": "train",
                "index": 0,
                "id": "1",
                "aliases": ["Roma", "ROME"],
                **{name: value for name, value in record.items() if name == "level"},
            },
        }
    ]


def test_an_instruction_and_a_system_prompt_stand_in_the_prompt(tmp_path):
    (row,) = written(tmp_path, [{"prompt": "1+1?", "answer": "2"}], system_prompt="Be brief.", instruction="Number:")
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"] == "1+1?\n\nNumber:"


def test_files_with_and_without_aliases_can_be_read_together(tmp_path):
    """verl concatenates what data.train_files lists, which takes one schema."""
    for name, records in (("a", rows(2)), ("b", rows(2, aliases=lambda n: [f"{n}.0"]))):
        options = TrainOptions(task="jsonl", data=str(data_file(tmp_path / f"{name}.jsonl", records)))
        write_verl_data(options, tmp_path / name)
    found = [
        datasets.Dataset.from_parquet(str(tmp_path / name / "train.parquet"), cache_dir=str(tmp_path / "cache"))
        for name in ("a", "b")
    ]
    both = datasets.concatenate_datasets(found)
    assert [row["extra_info"]["aliases"] for row in both] == [[], [], ["0.0"], ["1.0"]]


def test_a_single_file_is_cut_where_rows_are_held_out(tmp_path):
    file = data_file(tmp_path / "own.jsonl", rows(6))
    found = write_verl_data(TrainOptions(task="jsonl", data=str(file), hold_out=2), tmp_path / "cut")
    assert [(one.file.name, one.rows) for one in found] == [("train.parquet", 4), ("validation.parquet", 2)]
    prompts = [str(row["prompt"]) for one in found for row in read(one.file)]
    assert len(set(prompts)) == 6
    whole = write_verl_data(TrainOptions(task="jsonl", data=str(file)), tmp_path / "whole")
    assert [(one.file.name, one.rows) for one in whole] == [("train.parquet", 6)]


def test_of_a_recipe_what_concerns_data_is_read(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: pocket-dial\nstyle: warm\nobjective: grpo\nq: null\nmax_grad_norm: 1.0\n")
    options = read_data_options(str(recipe), {"subset": "2"})
    assert options.changed() == {"task": "pocket-dial", "style": "warm", "subset": "2"}
    recipe.write_text("task: pocket-dial\nstile: warm\n")
    with pytest.raises(ValueError, match="unknown key 'stile'.*did you mean 'style'"):
        read_data_options(str(recipe), {})


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    assert main(["verl-data", STAR, str(tmp_path / "out"), "--splits", "test", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["files"]
    assert one["file"] == str(tmp_path / "out" / "test.parquet")
    assert one["rows"] == len(read(one["file"]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pocket-dail", "OUT"], "unknown task 'pocket-dail'; did you mean 'pocket-dial'?"),
        ([STAR], "the following arguments are required: OUT"),
        ([STAR, "OUT", "--splits", "trian"], "unknown split 'trian'; did you mean 'train'?"),
        ([STAR, "OUT", "--splits", ","], "splits must name one at least of train, validation, test"),
        ([STAR, "OUT", "--objective", "grpo"], "unknown flag '--objective'"),
        ([STAR, "OUT", "--hold-out", "2"], "hold_out is for a single file"),
        (["none.yaml", "OUT"], "no config file none.yaml"),
        (["jsonl", "OUT", "--data", "none.jsonl"], "none.jsonl"),
    ],
)
def test_what_cannot_be_used_gets_one_line_and_writes_nothing(tmp_path, capsys, words, told):
    out = tmp_path / "out"
    assert main(["verl-data", *(str(out) if word == "OUT" else word for word in words)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("qredit: ")
    assert said.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (rows(2, index=str), "column 'index' has the name of a key of extra_info that is taken"),
        (rows(2, level=lambda n: [n, "one"][n]), "column 'level', which a reward function of yours may read"),
    ],
)
def test_values_that_no_table_holds_are_refused_by_name(tmp_path, records, told):
    with pytest.raises(ValueError, match=told):
        written(tmp_path, records)
    assert not (tmp_path / "out").exists()


def test_messages_that_no_table_holds_are_refused():
    messages = [[{"role": "user", "content": "?", "name": name}] for name in (1, "x")]
    examples = [Example(prompt, "1", id=str(number)) for number, prompt in enumerate(messages)]
    with pytest.raises(QreditError, match="the prompts' messages cannot be kept in one table"):
        make_verl_table(examples, "jsonl", "train")


def test_files_that_exist_are_not_written_over(tmp_path, capsys):
    (tmp_path / "validation.parquet").write_text("mine")
    assert main(["verl-data", STAR, str(tmp_path)]) == 2
    assert "validation.parquet exists already; give another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["validation.parquet"]


@pytest.mark.parametrize(("absent", "status"), [(("trl",), 0), (("verl",), 0), (("trl", "verl"), 2)])
def test_either_engine_will_do(tmp_path, monkeypatch, capsys, absent, status):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in absent else name)
    assert main(["verl-data", STAR, str(tmp_path), "--splits", "validation"]) == status
    if status:
        said = capsys.readouterr().err
        assert "install with: pip install 'qredit[trl]' or pip install 'qredit[verl]'" in said
