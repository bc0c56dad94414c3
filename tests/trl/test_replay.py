"""Replay in a run: further optimiser steps on earlier rollouts, resumed bit for bit, refused where it does not fit."""

import json

import pytest
import torch

from qredit.cli.main import main
from qredit.objectives import grpo
from qredit.trl.checks import check_replay
from qredit.utils.errors import QreditError
from tests.support.marks import e2e
from tests.support.runs import length_reward, questions, settings, trainer
from tests.support.tiny import model

RULE = "spear(buffer=2, baseline=8, steps=4, low=0.001, high=40)"
POOL = "pool(draw=3, weight=1, epsilon_low=0.2, epsilon_high=0.2, steps=4)"


def run(folder, resume=None, **changes):
    made = trainer(
        folder, "grpo()", questions(8), model(), reward_funcs=length_reward, save_strategy="steps", save_steps=1,
        **({"max_steps": 6, "replay": RULE, "steps_per_generation": 2} | changes),
    )  # fmt: skip
    steps = []
    made.create_optimizer()
    made.optimizer.register_step_pre_hook(lambda *_: steps.append(made.state.global_step + 1))
    made.train(resume_from_checkpoint=resume)
    return made, steps


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.model.parameters()])


@pytest.mark.parametrize(("rule", "rows", "kept"), [(RULE, [0, 2, 2], None), e2e(POOL, [0, 3, 3], [16, 32, 32])])
def test_replayed_rollouts_take_steps_of_their_own_and_resume(tmp_path, rule, rows, kept):
    """A generation serves two steps, so replay may follow each second one; step 3 has rollouts on the way."""
    whole, steps = run(tmp_path / "whole", replay=rule)
    logged = {entry["step"]: entry for entry in whole.state.log_history if "replay/kept" in entry}
    assert {step: entry["replay/rows"] for step, entry in logged.items()} == dict(zip((2, 4, 6), rows, strict=True))
    assert kept in (None, [entry["replay/kept"] for entry in logged.values()])
    assert steps == [1, 2, 3, 4, 4, 5, 6, 6], "one step more behind the fourth and the sixth"
    assert logged[4]["replay/factor"] == 1.0
    assert 0 <= logged[4].get("replay/baseline", 0) <= 1
    again, _ = run(tmp_path / "again", str(tmp_path / "whole" / "checkpoint-3"), replay=rule)
    assert torch.equal(weights(again), weights(whole))
    plain, _ = run(tmp_path / "plain", replay=None)
    assert not torch.equal(weights(plain), weights(whole))


@pytest.mark.e2e
def test_one_command_replays_on_a_pocket_task(tmp_path):
    folder = str(tmp_path / "run")
    words = ["--task", "pocket-hotpot", "--style", "warm", "--objective", "grpo", "--m", "4", "--prompts-per-step", "4"]
    assert main(["train", "--quiet", *words, "--replay", RULE, "--steps", "4", "--output", folder]) == 0
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(entry.get("replay/rows", 0) for entry in entries) > 0
    assert main(["train", "--quiet", *words, "--replay", "speer(buffer=2)", "--output", str(tmp_path / "other")]) == 2


@pytest.mark.parametrize(
    ("objective", "changes", "message"),
    [
        ("garl(q=0.5)", {}, "replay takes objectives of rewards alone"),
        ("grpo()", {"replay": "spear(buffer=2)"}, "spear"),
        ("aepo()", {"drawing": "hold_entropy(target=0.5)"}, "puts in some without any"),
    ],
)
def test_what_cannot_be_replayed_is_refused(tmp_path, objective, changes, message):
    with pytest.raises(QreditError, match=message) as found:
        trainer(tmp_path, objective, **({"replay": RULE} | changes))
    assert "\n" not in str(found.value)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    args = settings(tmp_path, replay=RULE)
    monkeypatch.setattr(type(args), "world_size", 2)
    with pytest.raises(QreditError, match="replay takes one process"):
        check_replay(grpo(), args)
