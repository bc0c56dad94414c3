"""The benchmark of a step: sizes, useful arithmetic, and rows that say what was compared."""

import functools
import json

import pytest
import torch

from qredit import QreditError
from qredit.cli.main import main
from qredit.trl.bench import timing
from qredit.trl.bench.arms import make, make_rollouts
from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import ModelShape, Size
from qredit.trl.bench.timing import _of_phase, make_row, rollouts_for, time_in_turns


def test_a_size_is_read_and_said():
    assert Size.parse("512/64/16") == Size(prompt=512, completion=64, m=16)
    assert str(Size(512, 64, 16)) == "512/64/16"


@pytest.mark.parametrize("text", ["512/64", "a/b/c", "512/64/16/2", "512/-64/16", "512/4/16", "512/64/1"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(QreditError, match=text):
        Size.parse(text)


def test_useful_arithmetic_by_hand():
    """One layer of width 2, one head of width 1, no inner layer, vocabulary 10; prompt 4, two completions of 1 token.

    Projections 2·(2·1 + 2·1) = 8 multiplications a token, 2·8·6 = 96 operations; head 2·10·2·2 = 80; attention
    4·(4²/2 + 2·(4 + 1/2)) = 68; three times for the backward pass.
    """
    shape = ModelShape(vocabulary=10, hidden=2, inner=0, layers=1, heads=1, key_heads=1, head=1)
    assert shape.useful_flops(Size(4, 1, 2)) == 3 * (96 + 80 + 68)
    assert shape.useful_flops(Size(4, 1, 2), frozen=True) == 2 * (96 + 80) + 3 * 68


def test_the_default_shape_has_the_size_it_says():
    parameters = sum(p.numel() for p in ModelShape().model(64).parameters())
    assert 6.7e6 < parameters < 7.1e6


def test_rollouts_have_the_asked_lengths():
    made = make_rollouts(Size(20, 16, 3), ModelShape(), seed=1, opening=2, closing=3)
    assert (len(made.prompt), {len(ids) for ids in made.completions}) == (20, {16})
    assert made == made
    assert all(ids[-9] == 3 and ids[-1] == 1 for ids in made.completions)
    assert len(set(made.rewards)) == 2


def test_a_ratio_is_theirs_over_ours_round_by_round():
    seconds = {
        ("trl", "grpo"): {"sample": [1.0, 2.0, 3.0], "update": [8.0, 10.0, 9.0]},
        ("qredit", "garl"): {"sample": [1.0, 1.0, 1.0], "update": [2.0, 5.0, 3.0]},
    }
    row = make_row(Size(10, 20, 3), "step", "garl", "trl", seconds, {}, None)
    assert _of_phase(seconds["qredit", "garl"], "step") == [3.0, 6.0, 4.0]
    assert (row.ratio, row.low, row.high) == (3.0, 2.0, 3.0)
    assert (row.seconds, row.their_seconds, row.tokens_per_second) == (4.0, 12.0, 70 / 4)


def test_phases_with_fewer_rounds_make_fewer_steps():
    assert _of_phase({"sample": [1.0, 2.0], "update": [8.0, 10.0, 9.0]}, "step") == [9.0, 12.0]


TINY = ModelShape(vocabulary=64, hidden=16, inner=16, layers=1, heads=2, key_heads=1, head=8, tied=True)


class Counted:
    """An arm that notes its name when it updates."""

    def __init__(self, name, turns):
        self.name, self.turns, self.trainer = name, turns, self
        self.model = torch.nn.Linear(1, 1)

    def update(self, rollouts):
        self.turns.append(self.name)


def test_arms_take_turns_until_there_is_no_time():
    turns = []
    arms = {(name, "grpo"): Counted(name, turns) for name in ("trl", "qredit")}
    seconds = time_in_turns(arms, ["update"], None, 5, lambda what: None, lambda: len(turns) < 6)
    assert turns == ["qredit", "trl", "trl", "qredit", "qredit", "trl"]
    assert {key: len(own["update"]) for key, own in seconds.items()} == dict.fromkeys(arms, 3)


@pytest.mark.parametrize("lora_r", [None, 2])
def test_both_trainers_compute_alike(lora_r):
    """As `train()` makes them: layers in bf16 while they sample and update, and once more in the backward pass."""
    size = Size(12, 11, 2)
    for key in (("trl", "grpo()"), ("qredit", "garl(q=0.75)")):
        arm, seen = make(*key, size, TINY, Setup(half=True, checkpointing=True, lora_r=lora_r)), []
        layer = next(part for name, part in arm.trainer.model.named_modules() if name.endswith("q_proj"))
        layer.register_forward_hook(lambda module, given, out, seen=seen: seen.append((out.dtype, out.shape)))
        arm.sample()
        arm.update(rollouts_for(arm, size, TINY))
        assert {kind for kind, _ in seen} == {torch.bfloat16}
        assert seen[-1] == seen[-2]
        trained = [name for name, p in arm.trainer.model.named_parameters() if p.grad is not None]
        assert trained
        assert all("lora" in name for name in trained) == (lora_r is not None)


@pytest.fixture
def quick(monkeypatch):
    """A small model; the arithmetic of this device from a small product; memory as given, not of a process each."""
    monkeypatch.setattr("qredit.trl.bench.size.ModelShape", functools.partial(ModelShape, layers=1, vocabulary=512))
    monkeypatch.setattr(timing, "matmul_rate", functools.partial(timing.matmul_rate, size=256))
    memory = {"trl": 300.0, "ordinary": 200.0, "qredit": 150.0}
    monkeypatch.setattr(timing, "peak_memory", lambda name, *more: memory[name])


@pytest.mark.e2e
def test_sampling_is_measured_too(capsys, quick):
    words = "bench step --sizes 12/12/2 --objectives garl --phases sample --runs 1 --threads 1 --cpu --json --quiet"
    assert main(words.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["phase"], row["against"], row["ratio"] > 0) for row in rows] == [
        ("sample", "trl", True),
        ("sample", "ordinary", True),
    ]


def test_the_command_prints_rows(capsys, quick):
    words = "bench step --sizes 12/12/2 --objectives grpo --phases update --runs 1 --threads 1 --memory true"
    words += " --cpu --json --quiet"
    assert main(words.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["against"] for row in rows] == ["trl", "ordinary"]
    for row in rows:
        assert (row["prompt"], row["completion"], row["m"], row["phase"], row["objective"]) == (
            12,
            12,
            2,
            "update",
            "grpo",
        )
        assert row["ratio"] > 0
        assert row["peak_memory_ratio"] == {"trl": 0.5, "ordinary": 0.75}[row["against"]]
        assert 0 < row["roofline"] < 1


@pytest.mark.long
def test_memory_is_measured_in_a_process_of_its_own():
    assert timing.peak_memory("qredit", "grpo", Size(12, 12, 2), ModelShape(layers=1), Setup()) > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--sizes 5/5", "5/5"),
        ("--sizes ²/48/16", "²/48/16"),
        ("--sizes 99999999999999999999/48/16", "1,000,000"),
        ("--sizes ,", "sizes must name"),
        ("--objectives grp", "'grpo'"),
        ("--objectives ,", "grpo, garl, paft"),
        ("--phases ,", "sample, score, update, step"),
        ("--runs 0", "runs"),
        ("--threads 100000000000", "100000000000"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, said, capsys):
    assert main(["bench", "step", *words.split()]) == 2
    assert said in capsys.readouterr().err
