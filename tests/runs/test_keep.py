"""A probe's file as a filter of the training data: what an expression may hold, which file is taken, what is kept."""

import json
import math

import pytest

from qredit.cli.main import main
from qredit.runs.example_filter import MAX_CHARACTERS, ExampleFilter, filter_examples, hash_example, read_probe_file
from qredit.runs.options import TrainOptions
from qredit.tasks import Example
from qredit.utils.errors import QreditError
from tests.support.folders import SHORT, data_file, flags, model_folder

COLUMNS = {"success": 0.25, "log10_p_hat": -6.0, "weight_ess": 2.0}


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("success < 0.9 and log10_p_hat > -12", True),
        ("success < 0.9 and log10_p_hat > -2", False),
        ("not (success >= .5 or weight_ess != 2)", True),
        ("-12 < log10_p_hat <= -6", True),
        ("-12 < log10_p_hat < -6 < 0", False),
        ("success * 4 + 1 - weight_ess / 2 == 1", True),
        ("success > +0.1", True),
    ],
)
def test_an_expression_is_worked_out(text, accepted):
    assert ExampleFilter(text).accepts(COLUMNS) is accepted


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true') == 0",
        "success.__class__ == 1",
        "(lambda: 1)() == 1",
        "[x for x in success] == 1",
        "success ** 9 ** 9 ** 9 > 1",
        "success < 'a'",
        "success",  # a number is no verdict
        "1 if success else 0",
        "success is 1",
        "success in (1, 2)",
        "(success := 1) > 0",
        "success < True",
        "1e400 > success",
        "success <",
        "",
        "\x00",
        "(" * 400 + "1" + ")" * 90,
        "-" * 400 + "1 < success",
        f"success < 1{' ' * MAX_CHARACTERS}",
        "success > 0; success < 1",
    ],
)
def test_nothing_else_is_read(text):
    with pytest.raises(QreditError, match="keep"):
        ExampleFilter(text)


def test_a_division_by_0_is_said_and_not_raised():
    with pytest.raises(QreditError, match="divides by 0"):
        ExampleFilter("1 / (success - 0.25) > 1").accepts(COLUMNS)


def examples(count=6):
    return [Example(f"What is {n}?", str(n), id=str(n)) for n in range(count)]


def probe_file(path, of, **columns):
    rows = [
        {"id": one.id, "hash": hash_example(one), "log10_p_hat": -float(n), "success": 0.0} | columns
        for n, one in enumerate(of)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_hash_is_that_of_content_whatever_its_wrapping_and_id():
    plain = Example("What is 2?", "2", id="a")
    assert hash_example(plain) == hash_example(Example([{"role": "user", "content": "What is 2?"}], "2", id="b"))
    others = (
        Example("What is 2? ", "2"),
        Example("What is 2?", "3"),
        Example([{"role": "system", "content": "What is 2?"}], "2"),
    )
    assert len({hash_example(one) for one in (plain, *others)}) == 4
    assert hash_example(plain) == "740137df8a081b114be3cd71eeefed1a657b2ddf5d7eb19d2d90bfb5d546da91"


def test_what_is_accepted_is_kept_in_order_and_rest_is_counted(tmp_path):
    file = probe_file(tmp_path / "probe.jsonl", examples(4))
    found = filter_examples(examples(6), ExampleFilter("log10_p_hat > -2.5"), file, batch=2)
    assert [one.id for one in found.examples] == ["0", "1", "2"]
    assert (found.left_out, found.unprobed) == (1, 2)


def test_likelihood_of_0_is_null_in_file_and_below_every_bound(tmp_path):
    file = probe_file(tmp_path / "probe.jsonl", examples(2), log10_p_hat=None)
    assert [row.numbers["log10_p_hat"] for row in read_probe_file(file).values()] == [-math.inf, -math.inf]
    with pytest.raises(QreditError, match="keeps 0 of 2 probed examples, fewer than the 1 prompts"):
        filter_examples(examples(2), ExampleFilter("log10_p_hat > -300"), file, batch=1)


def test_a_file_of_other_data_is_refused(tmp_path):
    changed = [Example(one.prompt, one.answer + "0", id=one.id) for one in examples()]
    file = probe_file(tmp_path / "probe.jsonl", changed)
    with pytest.raises(QreditError, match=r"of other data: 0 of its 6 .* prompt or answer of '0' is another"):
        filter_examples(examples(), ExampleFilter("success < 1"), file, batch=1)
    elsewhere = probe_file(tmp_path / "far.jsonl", [Example("Who?", str(n), id=f"x{n}") for n in range(6)])
    with pytest.raises(QreditError, match="of other data"):
        filter_examples(examples(), ExampleFilter("success < 1"), elsewhere, batch=1)
    one_changed = probe_file(tmp_path / "one.jsonl", [*examples(5), changed[5]])
    with pytest.raises(QreditError, match="of other data: 5 of its 6"):
        filter_examples(examples(), ExampleFilter("success < 1"), one_changed, batch=1)


def test_names_that_are_no_columns_are_refused(tmp_path):
    file = probe_file(tmp_path / "probe.jsonl", examples())
    with pytest.raises(QreditError, match="column 'sucess'.*success"):
        filter_examples(examples(), ExampleFilter("sucess < 1"), file, batch=1)
    with pytest.raises(QreditError, match="cannot read probe file"):
        read_probe_file(tmp_path / "missing.jsonl")
    for text in ("[1]\n", "{}\n", "no json\n", "null\n"):
        file.write_text(text)
        with pytest.raises(QreditError, match="line 1"):
            read_probe_file(file)
    file.write_text("")
    with pytest.raises(QreditError, match="empty"):
        read_probe_file(file)


@pytest.mark.parametrize("given", [{"keep": "success < 1"}, {"probe": "file"}])
def test_keep_and_probe_need_each_other(given):
    with pytest.raises(QreditError, match="needs"):
        TrainOptions(**given)


@pytest.mark.e2e
def test_a_probe_writes_the_file_that_train_reads(tmp_path, capsys):
    data, network, file = tmp_path / "data", model_folder(tmp_path / "model"), tmp_path / "probe.jsonl"
    data.mkdir()
    data_file(data / "train.jsonl", [{"prompt": f"What is {n}? ", "answer": str(n)} for n in range(6)])
    same = {name: SHORT[name] for name in ("max_completion_length", "answer_budget")}
    asked = ["probe", *flags(task="jsonl", data=data, model=network, m=2, per_prompt=file, cpu="true", **same)]
    assert main([*asked, "--quiet"]) == 0
    capsys.readouterr()
    rows = read_probe_file(file)
    assert len(rows) == 6
    assert {"log10_p_hat", "success", "weight_ess", "rollouts"} <= set.intersection(
        *(set(row.numbers) for row in rows.values())
    )
    assert main([*asked, "--quiet", "--json"]) == 2
    assert "exists already" in json.loads(capsys.readouterr().out)["error"]
    limit = sorted(row.numbers["log10_p_hat"] for row in rows.values())[2]
    keep = ["--keep", f"success < 2 and log10_p_hat >= {limit!r}", "--probe", str(file)]
    words = ["train", "--json", "--quiet", *flags(task="jsonl", data=data, model=network, **SHORT), *keep]
    assert main([*words, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["filtered"] == {"kept": 4, "left_out_by_keep": 2, "unprobed": 0}
    assert plan["examples"] == 4
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 4
    assert json.loads((tmp_path / "run" / "record.json").read_text())["kept"] == 4
