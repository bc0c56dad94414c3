"""For-Value: the closed form is the inner product of gradients; the command writes values or refuses in one line."""

import json
import math
from dataclasses import replace

import pytest
import torch

from qredit.cli.main import main
from qredit.data.demonstrations import Demonstration
from qredit.probe.value import ValueSetup, list_token_ids, make_answer_row, read_gradients, value_examples
from qredit.stats.ranking import area_under_curve
from tests.support.folders import data_file, flags, model_folder, rows
from tests.support.tiny import model

CLOSE = (7, 8)
ANSWERS = {
    "train": [((11, 12, 13), (21, 22)), ((14,), (23,)), ((11, 15, 16, 17, 18), (21, 24, 25, 26))],
    "held": [((31, 12), (21, 22)), ((32, 33, 34), (27,))],
}


def answer_rows(kind):
    return [make_answer_row(Demonstration(prompt, (*CLOSE, *gold)), len(CLOSE)) for prompt, gold in ANSWERS[kind]]


def setup(network):
    return ValueSetup(network, 0, [], answer_rows("train"), answer_rows("held"), 0)


def head_gradient(network, prompt, gold):
    """Of the answer's log-likelihood, in the head's weight alone, by autograd over one unpadded sequence."""
    ids = torch.tensor([[*prompt, *CLOSE, *gold]])
    with torch.no_grad():
        hidden = network.base_model(input_ids=ids).last_hidden_state[0, -len(gold) - 1 : -1]
    weight = network.get_output_embeddings().weight.detach().clone().requires_grad_()
    logp = (hidden @ weight.T).log_softmax(-1)[torch.arange(len(gold)), torch.tensor(gold)].sum()
    return torch.autograd.grad(logp, weight)[0].double()


@pytest.mark.parametrize("rows_per_batch", [1, 8])
def test_a_value_is_an_inner_product_of_head_gradients(rows_per_batch):
    network = model().eval()
    whole = {kind: [head_gradient(network, *one) for one in own] for kind, own in ANSWERS.items()}
    among = list_token_ids([*setup(network).rows, *setup(network).held])
    mean = torch.stack(whole["held"]).mean(0)[among]
    expected = [float((one[among] * mean).sum()) for one in whole["train"]]
    done = []
    found = value_examples(setup(network), rows_per_batch, done.append)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert sum(done) == 5
    assert max(map(abs, expected)) > 1e-2


def test_on_all_ids_it_is_the_whole_gradient():
    network = model().eval()
    every = torch.arange(network.get_output_embeddings().weight.shape[0])
    for kind, own in ANSWERS.items():
        ((tokens, owner),) = read_gradients(network, answer_rows(kind), every, 0, 8)
        for number, one in enumerate(own):
            bank = tokens.bank((owner == number).float())
            assert torch.allclose(bank.double(), head_gradient(network, *one), rtol=1e-3, atol=1e-5)


def test_training_mode_is_left_as_it_was():
    network = model().train()
    value_examples(setup(network), 8)
    assert network.training


def test_only_prompts_and_answers_say_which_ids_are_read():
    (row, *_) = answer_rows("train")
    assert list_token_ids([row, replace(row, prompt=(2, 11))]).tolist() == [2, 11, 12, 13, 21, 22]


def test_the_area_counts_pairs_in_the_right_order():
    values, right = [3.0, 1.0, 2.0, 2.0, 0.0], [True, True, False, True, False]
    pairs = [
        (a > b) + (a == b) / 2
        for a, r in zip(values, right, strict=True)
        if r
        for b, s in zip(values, right, strict=True)
        if not s
    ]
    assert area_under_curve(values, right) == pytest.approx(sum(pairs) / len(pairs))
    assert area_under_curve([1.0, 2.0], [False, True]) == 1.0
    assert area_under_curve([1.0, 1.0], [False, True]) == 0.5
    assert math.isnan(area_under_curve([1.0], [True]))


def options(tmp_path, **more):
    records = rows(8, right=lambda n: str(n if n % 4 else n + 1))
    data = data_file(tmp_path / "rows.jsonl", records)
    return {"task": "jsonl", "data": data, "model": tmp_path / "model", "hold_out": 2, "cpu": True,
            "output": tmp_path / "values.jsonl"} | more  # fmt: skip


@pytest.mark.engine
def test_the_command_writes_values_and_the_area(tmp_path, capsys):
    model_folder(tmp_path / "model")
    assert main(["value", "--json", *flags(**options(tmp_path, right_column="right"))]) == 0
    told = json.loads(capsys.readouterr().out)
    written = [json.loads(line) for line in (tmp_path / "values.jsonl").read_text().splitlines()]
    assert (told["examples"], told["held"], len(written)) == (6, 2, 6)
    assert [one["value"] for one in written] == sorted(one["value"] for one in written)
    assert told["wrong"] == sum(not one["right"] for one in written)
    right = [one["right"] for one in written]
    assert told["auc"] == pytest.approx(area_under_curve([one["value"] for one in written], right), nan_ok=True)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held": 0}, "held must be at least 1, got 0"),
        ({"split": "train"}, "split must be validation or test, got 'train'"),
        ({"output": "nowhere/values.jsonl"}, "for the values"),
        ({"hold_out": 8}, "hold_out=8 of them are held out"),
        ({"model": "no-such-folder/model"}, "no-such-folder/model"),
    ],
)
def test_what_cannot_be_used_ends_with_one_line(tmp_path, capsys, changes, said):
    model_folder(tmp_path / "model")
    assert main(["value", *flags(**options(tmp_path, **changes))]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.engine
def test_a_file_that_is_there_is_left_alone(tmp_path, capsys):
    (tmp_path / "values.jsonl").write_text("mine")
    assert main(["value", *flags(**options(tmp_path))]) == 2
    assert "exists already; give another --output" in capsys.readouterr().err
    assert (tmp_path / "values.jsonl").read_text() == "mine"


@pytest.mark.engine
def test_a_column_that_is_not_there_is_named(tmp_path, capsys):
    model_folder(tmp_path / "model")
    assert main(["value", *flags(**options(tmp_path, right_column="rigth"))]) == 2
    assert "'rigth'" in capsys.readouterr().err
    assert not (tmp_path / "values.jsonl").exists()
