"""The files of a run on verl are looked through before Ray starts."""

import pyarrow
import pyarrow.parquet
import pytest

from qredit.runs.options import TrainOptions
from qredit.runs.verl_data import write_verl_data
from qredit.utils.errors import QreditError
from qredit.verl.check_data import check_data
from qredit.verl.settings import VerlSettings
from tests.support.folders import data_file, rows
from tests.support.tiny import tokenizer

SETTINGS = VerlSettings(objective="garl(q=0.75)")


class Options(dict):
    """verl's options: keys that are attributes, too."""

    __getattr__ = dict.__getitem__


def check(tmp_path, records, length=64, settings=SETTINGS):
    """Looks through what `qredit verl-data` makes of the records."""
    options = TrainOptions(task="jsonl", data=str(data_file(tmp_path / "own.jsonl", records)))
    file = write_verl_data(options, tmp_path / "out")[0].file
    options = Options(train_files=[str(file)], val_files=str(file), max_prompt_length=length)
    check_data(options, settings, tokenizer())


def test_what_verl_data_writes_is_accepted(tmp_path):
    check(tmp_path, rows(4, aliases=lambda n: [f"{n}0"]))


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (rows(3, prompt=lambda n: f"What is {n}" * (1 + 30 * (n == 1))), "1 of 3 prompts are longer than data.max_pro"),
        (rows(3, answer=lambda n: ["1", tokenizer().eos_token, "2"][n]), "id '2'"),
    ],
)  # fmt: skip
def test_rows_that_a_run_would_stumble_over_are_named(tmp_path, records, told):
    with pytest.raises(QreditError, match=told):
        check(tmp_path, records)


def test_files_that_are_none_are_named(tmp_path):
    given = {"val_files": "none.parquet", "max_prompt_length": 8}
    with pytest.raises(QreditError, match="no data file none.parquet; `qredit verl-data` writes one"):
        check_data(Options(train_files=["none.parquet"], **given), SETTINGS, tokenizer())
    torn = tmp_path / "torn.parquet"
    torn.write_text("no parquet")
    with pytest.raises(QreditError, match="cannot be read as parquet"):
        check_data(Options(train_files=str(torn), **given), SETTINGS, tokenizer())
    foreign = tmp_path / "foreign.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["?"]}), foreign)
    with pytest.raises(QreditError, match="no column 'prompt'"):
        check_data(Options(train_files=str(foreign), **given), SETTINGS, tokenizer())
