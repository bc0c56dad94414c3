"""Whole runs on verl: Ray, TransferQueue, FSDP2 on two gloo ranks, two rollout servers, with an unedited verl.

Each takes one to two minutes. Weights of every step are recorded, and the first step is held against our own engine.
"""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit import pocket
from qredit.engine.step import MicrobatchPosition
from qredit.objectives.parsing import parse
from qredit.report.collect import collect_runs
from qredit.rollouts.format import Format, TokenFormat
from qredit.runs.options import TrainOptions
from qredit.runs.verl_data import write_verl_data
from tests.support.toy_engine import ToyEngine
from tests.support.verl_cpu.environment import needs_verl

pytestmark = [needs_verl, pytest.mark.verl, pytest.mark.long]
MODEL = pocket.get_model_path("dial-6")
RATE = 0.01


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_verl_data(TrainOptions(task="pocket-dial", subset="16"), folder)
    return folder


def run(folder, data, objective, **changes):
    """The output of a run, its rollouts and the weights that both servers were given: [step][server]."""
    from qredit.engine.sequences import from_text
    from tests.support.verl_cpu.tiny_run import start, write_config

    folder.mkdir(exist_ok=True)
    said = start(folder, write_config(folder, MODEL, data, objective, **changes))
    lines = (folder / "rollouts.jsonl").read_text().splitlines()
    rollouts = [from_text(text, group) for group, text in map(json.loads, lines)]
    steps = max(int(path.stem.split("-")[1]) for path in folder.glob("weights-*.pt"))
    weights = [[torch.load(folder / f"weights-{step}-{rank}.pt") for rank in (0, 1)] for step in range(steps + 1)]
    return said, rollouts, weights


def read_metric(said, step, name):
    return float(re.search(rf"step:{step} - .*?{re.escape(name)}:([-+0-9.e]+|nan)", said).group(1))


def reference(objective, rollouts, weights):
    """Loss and gradients of our own engine on these rollouts with these weights."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model.load_state_dict(weights)
    format = TokenFormat(Format.of(tokenizer), tokenizer)
    toy = ToyEngine(model, parse(objective), format, tokenizer, draw=None, reward=None, m=4, seed=0)
    generation = toy.generations.make(model, rollouts, toy.objective.at(0.0), 0, 4)
    loss, _ = toy.step.take(model, toy.objective.at(0.0), generation, MicrobatchPosition(0))
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_weights_are_shared(weights):
    for one, other in weights:
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("objective", ["garl(q=0.75)", "paft(q=0.5)"])
def test_the_first_step_is_that_of_our_own_engine(tmp_path, data, objective):
    said, rollouts, weights = run(tmp_path, data, objective)
    assert len(rollouts) == 16
    check_weights_are_shared(weights)
    initial = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).state_dict()
    assert all(torch.equal(initial[name], value) for name, value in weights[0][0].items())
    loss, gradients = reference(objective, rollouts[:8], weights[0][0])
    norm = float(torch.stack([one.norm() for one in gradients.values()]).norm())
    assert read_metric(said, 1, "actor/loss") == pytest.approx(loss, rel=1e-5)
    assert read_metric(said, 1, "actor/grad_norm") == pytest.approx(norm, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(weights[1][0][name], weights[0][0][name] - RATE * gradient, rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(weights[1][0][name], weights[2][0][name]) for name in gradients)
    (kept,) = collect_runs([tmp_path / "checkpoints"])  # what `qredit report` reads
    assert kept.metrics[0]["actor/loss"] == pytest.approx(loss, rel=1e-5)
    assert [entry["step"] for entry in kept.credit] == [1, 2]
    assert kept.credit[0]["responses"]
    assert kept.credit[0]["exact"]


def test_answers_are_rewarded_without_the_gold_one(tmp_path, data):
    """Two mini-batches of a generation, validation first; no answer is right because the gold one is there."""
    dumps = tmp_path / "dumps"
    _, rollouts, weights = run(
        tmp_path, data, "grpo() | entropy_bonus(0.01)",
        **{
            "actor_rollout_ref.actor.ppo_mini_batch_size": 1,
            "trainer.val_before_train": True,
            "trainer.validation_data_dir": str(dumps),
            "data.val_max_samples": 4,
            "trainer.total_training_steps": 1,
        },
    )  # fmt: skip
    check_weights_are_shared(weights)
    assert {one.reward for one in rollouts} <= {0.0, 1.0}
    assert all((one.reward == 1.0) == (one.answer_ids == one.golds[0]) for one in rollouts)
    shown = [json.loads(line) for line in (dumps / "0.jsonl").read_text().splitlines()]
    assert len(shown) == 4
    for one in shown:  # a model of dial-6 never answers as asked: only an appended gold answer would stand at the end
        assert not one["output"].rstrip().endswith(one["gts"])


def told(one):
    """A rollout without the engine's log-probabilities."""
    return one.group, one.prompt, one.ids, one.golds, one.reward


def test_a_run_that_goes_on_is_the_unbroken_one(tmp_path, data):
    """AdamW, so that its moments matter; the second run ends after its first step and is then gone on with."""
    changes = {
        "actor_rollout_ref.actor.optim": {"optimizer": "AdamW", "lr": 1e-3},
        "trainer.save_freq": 1,
        "trainer.resume_mode": "auto",
    }
    _, rollouts, whole = run(tmp_path / "whole", data, "garl(q=0.75)", **changes)
    broken = tmp_path / "broken"
    run(broken, data, "garl(q=0.75)", **changes, **{"trainer.total_training_steps": 1})
    (broken / "rollouts.jsonl").unlink()
    _, again, parts = run(broken, data, "garl(q=0.75)", **changes)
    assert [told(one) for one in again] == [told(one) for one in rollouts[8:]]
    for name, value in whole[2][0].items():
        torch.testing.assert_close(parts[2][0][name], value, rtol=1e-4, atol=1e-5)
    (kept,) = collect_runs([broken / "checkpoints"])
    assert [entry["step"] for entry in kept.metrics] == [1, 2]
