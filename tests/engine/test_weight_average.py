"""A reference that follows the policy: its average by hand, its state, and a resumed run."""

from copy import deepcopy

import pytest
import torch
from peft import LoraConfig

import qredit.engine.weight_average as averaging
from qredit.engine.collective import SingleProcess
from qredit.engine.teacher import Forward
from qredit.engine.weight_average import WeightAverage
from qredit.fields import degenerate_rollouts, moving_average
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.share import share_prefix
from qredit.utils.errors import QreditError
from tests.support import tiny
from tests.support.runs import length_reward, trainer

SEGMENT = Segment((10, 20, 30), Role.THINK, sampled=True, logp=(-3.0,) * 3)
ROWS = collate([Trajectory((5, 6), (SEGMENT,), EndReason.ANSWER)] * 2, ("response",), 0, 0, torch.device("cpu"))


def setup(rate=0.75):
    policy = tiny.model()
    share_prefix(policy)
    policy.eval()
    forward = Forward(policy, policy, pack, lambda rows: [torch.arange(len(rows.batch.mask))], 1.0)
    return WeightAverage("ema", rate), forward


def move(forward, by):
    with torch.no_grad():
        for weight in forward.policy.parameters():
            weight.add_(by)


def first(model):
    return next(iter(model.parameters())).detach().clone()


def check_average():
    """Three steps at rate 3/4, the policy moved by 1 after each: 0, then 1/4 of the way to 1, then to 2."""
    learner, forward = setup()
    begun = learner.fill(ROWS, forward)["logp@ema"]
    assert torch.equal(begun, forward.scores(forward.policy, ROWS)["logp"])
    start = first(forward.policy)
    wanted, told = [0.0, 0.25, 0.6875], []
    for gap in wanted:
        told.append(learner.learn([ROWS], forward, SingleProcess())["distance"])
        torch.testing.assert_close(first(learner._model) - start, torch.full_like(start, gap))
        move(forward, 1.0)
    torch.testing.assert_close(first(forward.policy) - start, torch.full_like(start, 3.0))
    assert told[0] == 0
    assert min(told[1:]) > 0.1
    assert not any(p.requires_grad for p in learner._model.parameters())
    assert not torch.equal(learner.fill(ROWS, forward)["logp@ema"], begun)


def test_it_is_the_average_of_the_weights_so_far():
    check_average()


class turned_round(WeightAverage):
    """A mutant: it keeps what it should leave."""

    def learn(self, rows, forward, collective):
        self.rate = 1 - self.rate
        told = super().learn(rows, forward, collective)
        self.rate = 1 - self.rate
        return told


class still(WeightAverage):
    """A mutant: it stays where it began."""

    def learn(self, rows, forward, collective):
        return {"distance": 0.0}


@pytest.mark.parametrize("mutant", [turned_round, still])
def test_a_broken_average_is_noticed(mutant, monkeypatch):
    monkeypatch.setitem(globals(), "WeightAverage", mutant)
    with pytest.raises(AssertionError):
        check_average()


def test_it_goes_on_from_its_state():
    learner, forward = setup()
    other = WeightAverage("ema", 0.75)
    assert other.state_dict() == {"model": {}}
    learner.fill(ROWS, forward)
    move(forward, 0.5)
    learner.learn([ROWS], forward, SingleProcess())
    other.load_state_dict(deepcopy(learner.state_dict()))
    assert other.state_dict()["model"].keys() == learner.state_dict()["model"].keys()
    assert torch.equal(learner.fill(ROWS, forward)["logp@ema"], other.fill(ROWS, forward)["logp@ema"])


def test_adapters_and_rates_are_refused(tmp_path):
    for rate in (1.0, -0.1, "slow"):
        with pytest.raises(QreditError, match="rate of moving_average must be at least 0 and less than 1"):
            moving_average(rate)
    made = anchored(tmp_path, peft_config=LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(QreditError, match="train without adapters"):
        made.train()


def anchored(folder, **changes):
    maker = degenerate_rollouts(gram=2, repeats=3, garbled=0.5, cut_off=False)
    return trainer(
        folder, "t1(entropy=0.01, kl=0.1)", reward_funcs=length_reward, temperature=1.2, fields={"degenerate": maker},
        learners=[moving_average(0.5).make_learner("logp@ema")], **changes,
    )  # fmt: skip


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.model.parameters()])


@pytest.mark.e2e
def test_a_resumed_run_goes_on_with_its_average(tmp_path, monkeypatch):
    saved = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    whole = anchored(tmp_path, **saved)
    whole.train()
    entries = [entry for entry in whole.state.log_history if "average_ema/distance" in entry]
    assert [entry["average_ema/distance"] > 0 for entry in entries] == [False, True, True]
    resumed = anchored(tmp_path, **saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert torch.equal(weights(whole), weights(resumed))
    monkeypatch.setattr(averaging.WeightAverage, "load_state_dict", lambda self, state: None)
    forgetful = anchored(tmp_path, **saved)
    forgetful.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert not torch.equal(weights(whole), weights(forgetful))
