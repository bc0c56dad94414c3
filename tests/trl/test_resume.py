"""A run that is killed and resumed ends as if never stopped; a torn checkpoint is named and skipped."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qredit import QreditError
from qredit.engine.checkpoint import MANIFEST, find_damage, find_newest_complete, list_checkpoints, trim_lines
from tests.support.episodes import Counting
from tests.support.marks import e2e
from tests.support.paths import ROOT, SUPPORT
from tests.support.runs import length_reward, questions, trainer
from tests.support.tiny import model

STATEFUL = ("paft(q=linear(1, 0.2))", "on_span('sampled', reward() | subtract_running_mean(decay=0.5))")


class Deadly(Counting):
    """Kills its process at a step, counted over all episodes; none where `last` is None."""

    steps, last = 0, None

    def step(self, action):
        Deadly.steps += 1
        if Deadly.steps == Deadly.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def killed(folder, kills, objectives):
    """What came of runs that were killed so often: a report for each objective."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, str(SUPPORT / "crash.py"), str(folder), str(kills), "3", *objectives],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    reports = [json.loads(line) for line in ran.stdout.splitlines()[-len(objectives) :]]
    for report in reports:
        assert report["kills"] >= kills
        assert report["during_save"] >= 1
        assert all(report["same"]), report
        assert all(report["metrics"]), report
    return reports


@pytest.mark.e2e
def test_a_run_killed_at_random_moments_ends_with_same_weights(tmp_path):
    """SIGKILL inside a checkpoint's write, and at a random moment; bitwise equal. The long test kills more, of both."""
    killed(tmp_path, 2, STATEFUL[1:])


@pytest.mark.long
@pytest.mark.parametrize("objective", STATEFUL)
def test_many_kills_in_early_and_late_epochs_change_no_weight(tmp_path, objective):
    (report,) = killed(tmp_path, 12, [objective])
    assert report["during_save"] >= 2
    assert min(report["epochs"]) == 0
    assert max(report["epochs"]) >= 1


def finished(folder, **changes):
    made = trainer(
        folder, data=questions(8), reward_funcs=length_reward, save_strategy="steps", save_steps=1,
        **({"max_steps": 6, "steps_per_generation": 2} | changes),
    )  # fmt: skip
    made.train()
    return made


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.model.parameters()])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps that was never stopped, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, weights(finished(folder))


def resumed(folder, step, **changes):
    made = trainer(
        folder.parent / "resumed", data=questions(8), network=model(seed=5), reward_funcs=length_reward,
        save_strategy="steps", save_steps=1, **({"max_steps": 6, "steps_per_generation": 2} | changes),
    )  # fmt: skip
    made.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    return made


@pytest.mark.parametrize("step", [e2e(1), e2e(2), 3, e2e(4), e2e(5)])
def test_every_checkpoint_leads_to_the_same_end(whole, step):
    """Steps 1, 3 and 5 fall inside a generation, 4 is the end of the first epoch, 5 lies in the second."""
    folder, end = whole
    assert torch.equal(weights(resumed(folder, step)), end)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "changes", [{"num_iterations": 2}, {"gradient_accumulation_steps": 2, "steps_per_generation": 4}]
)
def test_reused_and_accumulated_generations_resume_too(tmp_path, changes):
    whole = weights(finished(tmp_path, max_steps=4, **changes))
    assert torch.equal(weights(resumed(tmp_path, 3, max_steps=4, **changes)), whole)


def test_a_resume_without_the_buffered_rollouts_would_be_seen(whole, tmp_path):
    """The mutant of the tests above: a save inside a generation that forgets its rollouts ends elsewhere."""
    folder = shutil.copytree(whole[0] / "checkpoint-3", tmp_path / "checkpoint-3")
    (folder / "rollouts_0.pt").unlink()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["rollouts_0.pt"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert not torch.equal(weights(resumed(tmp_path, 3)), whole[1])


def test_a_torn_checkpoint_is_named_and_newest_whole_one_taken(whole, tmp_path, caplog):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoint-6" / "optimizer.pt").write_bytes(b"torn")
    (tmp_path / "checkpoint-5" / MANIFEST).unlink()
    found, torn = find_newest_complete(tmp_path)
    assert found == tmp_path / "checkpoint-4"
    assert list(torn) == ["checkpoint-6", "checkpoint-5"]
    assert torn["checkpoint-6"].startswith("optimizer.pt has 4 bytes instead of")
    assert torn["checkpoint-5"].startswith("no readable manifest.json")
    made = trainer(tmp_path, data=questions(8), reward_funcs=length_reward, max_steps=6, steps_per_generation=2)
    with caplog.at_level("WARNING"):
        made.train(resume_from_checkpoint=True)
    assert "skipping checkpoint-6: optimizer.pt has 4 bytes" in caplog.text
    with pytest.raises(QreditError, match="checkpoint-6 cannot be resumed: optimizer.pt has 4 bytes"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_damage_of_the_same_size_is_seen_by_its_hash(tmp_path):
    finished(tmp_path, max_steps=1)
    path = tmp_path / "checkpoint-1" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert find_damage(tmp_path / "checkpoint-1") == "model.safetensors is damaged: its hash differs"


@pytest.mark.e2e
def test_a_run_killed_inside_an_episode_ends_with_same_weights(tmp_path):
    """SIGKILL in the second generation: some of its episodes are over, one is in its second turn."""
    asked = {"data": questions(8, steps=[2, 3] * 4), "environment": Deadly, "max_turns": 3, "observation_budget": 40}
    asked |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "reward_funcs": length_reward}
    unbroken = trainer(tmp_path / "whole", **asked)
    unbroken.train()
    Deadly.steps = 0
    child = os.fork()
    if child == 0:
        Deadly.last = 20 + 13  # a generation of one prompt with two turns and one with three takes 4·(2 + 3)
        trainer(tmp_path / "killed", **asked).train()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert [path.name for path in list_checkpoints(tmp_path / "killed")] == ["checkpoint-1"]
    again = trainer(tmp_path / "killed", network=model(seed=5), **asked)
    again.train(resume_from_checkpoint=True)
    assert torch.equal(weights(again), weights(unbroken))


def test_nothing_to_resume_and_another_objective_are_refused(tmp_path):
    with pytest.raises(QreditError, match="no whole checkpoint in .* to resume from"):
        trainer(tmp_path).train(resume_from_checkpoint=True)
    finished(tmp_path, max_steps=1)
    other = trainer(tmp_path, "garl(q=0.5)", data=questions(8), reward_funcs=length_reward)
    with pytest.raises(QreditError, match=r"was trained with garl\(q=0.75\), not with garl\(q=0.5\)"):
        other.train(resume_from_checkpoint=True)


@pytest.mark.e2e
def test_old_checkpoints_are_rotated_and_the_best_is_kept(tmp_path):
    made = trainer(
        tmp_path, save_strategy="steps", save_steps=1, max_steps=5, save_total_limit=2, eval_dataset=questions(4),
        eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=8, metric_for_best_model="eval_loss",
        greater_is_better=True,
    )  # fmt: skip
    made.train()
    best = made.state.best_global_step
    assert Path(made.state.best_model_checkpoint) == tmp_path / f"checkpoint-{best}"
    names = {path.name for path in list_checkpoints(tmp_path)}
    assert f"checkpoint-{best}" in names
    assert "checkpoint-5" in names
    assert len(names) <= 3
    stored = json.loads((tmp_path / "checkpoint-5" / "trainer_state.json").read_text())
    assert stored["best_model_checkpoint"] == made.state.best_model_checkpoint
    assert not (tmp_path / "_writing").exists()


def test_metrics_after_checkpoint_and_cut_off_line_are_trimmed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    trim_lines(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
