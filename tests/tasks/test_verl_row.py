"""A row that `qredit verl-data` writes is read as the question that it was."""

from qredit.runs.verl_data import make_verl_table
from qredit.tasks.base import Example
from qredit.tasks.verl_row import read_verl_row


def test_a_written_row_is_read_as_it_was():
    asked = Example("Where?", "Rome", id="a-1", aliases=("Roma",), columns={"level": 3})
    (row,) = make_verl_table([asked], "jsonl", "train").to_pylist()
    read = read_verl_row(row, aliases=True)
    assert (read.answer, read.id, read.aliases, dict(read.columns)) == ("Rome", "a-1", ("Roma",), {"level": 3})
    assert read_verl_row(row, aliases=False).aliases == ()
