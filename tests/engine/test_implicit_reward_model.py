"""The implicit reward model: its losses by hand, its gradient against autograd, its state, and a run with it."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig

from qredit.engine.collective import SingleProcess
from qredit.engine.implicit_reward_model import LOSSES, ImplicitRewardModel, compare_pairs, predict_outcomes
from qredit.engine.teacher import Forward
from qredit.fields import implicit_prm
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.patch_forward import score
from qredit.shared_prefix.share import share_prefix
from qredit.utils.errors import QreditError
from tests.support import tiny
from tests.support.runs import length_reward, trainer

CPU = torch.device("cpu")


def rollout(group, reward, *turns):
    """A rollout of turns of such lengths, with log-probabilities of the sampler."""
    generator = torch.Generator().manual_seed(int(100 * group + 10 * sum(turns) + len(turns)))
    segments = []
    for number, length in enumerate(turns):
        ids = torch.randint(10, 90, (length,), generator=generator).tolist()
        segments.append(Segment(tuple(ids), Role.THINK, True, logp=(-3.0,) * length, turn=number))
        if number + 1 < len(turns):
            segments.append(Segment((7, 8), Role.OBSERVATION, False, turn=number))
    return Trajectory((5, 6 + group), tuple(segments), EndReason.ANSWER, group=group, reward=reward)


GROUPS = [
    [rollout(0, 1.0, 3, 2), rollout(0, 0.0, 4), rollout(0, 0.0, 2, 2, 1), rollout(0, math.nan, 5)],
    [rollout(1, 1.0, 3), rollout(1, 1.0, 4), rollout(1, 1.0, 2, 2), rollout(1, 1.0, 6)],
]


def setup(loss="pairs", lr=1e-2):
    policy = tiny.model()
    share_prefix(policy)
    policy.eval()
    forward = Forward(policy, policy, pack, lambda rows: list(torch.arange(len(rows.batch.mask)).split(3)), 1.0)
    rows = [collate(group, ("response",), 0, 0, CPU) for group in GROUPS]
    return ImplicitRewardModel("prm", LOSSES[loss], 0.05, lr), forward, rows


def margins(model, rows):
    """D of each rollout, straight from the formula."""
    found = []
    for one in rows:
        logp = score(model, pack(one))["logp"].double()
        for row in range(len(logp)):
            total, turns = 0.0, 0
            for turn in range(5):
                own = one.batch.sampled[row] & (one.batch.turn[row] == turn)
                turns += int(own.any())
                total = total + (logp[row] - one.batch.sampler_logp[row].double())[own].sum()
            found.append(0.05 * total / turns)
    return torch.stack(found)


def test_a_pair_of_worked_sums_has_the_sheets_loss():
    """iStar: the sums of the steps 0.4 and -0.2 give rewards .02 and -.01; D+ - D- = 1.0 · 0.05 gives .6685."""
    margin, reward, group = torch.tensor([0.5, -0.5]) * 0.05, torch.tensor([1.0, 0.0]), torch.tensor([3, 3])
    loss, pairs = compare_pairs(margin, reward, group)
    assert (float(loss), pairs) == (pytest.approx(0.66846, abs=1e-5), 1.0)
    assert compare_pairs(margin, reward, torch.tensor([0, 1]))[1] == 0, "pairs are of one prompt"
    loss, count = predict_outcomes(torch.tensor([math.log(3.0), 0.0]), reward, group)
    assert (float(loss), count) == (pytest.approx(math.log(4 / 3) + math.log(2)), 2.0)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_its_step_is_along_the_gradient_of_the_whole_loss(loss):
    learner, forward, rows = setup(loss)
    learner.fill(rows[0], forward)
    learner._optimizer = torch.optim.SGD(learner._model.parameters(), lr=1.0)
    learner.largest_norm = math.inf
    parameters = list(learner._model.parameters())
    before = [p.detach().clone() for p in parameters]
    reward = torch.cat([one.batch.reward for one in rows])
    group = torch.cat([one.batch.group for one in rows])
    scored = ~reward.isnan()
    value, terms = LOSSES[loss](margins(learner._model, rows)[scored], reward[scored], group[scored])
    wanted = torch.autograd.grad(value / terms, parameters)
    told = learner.learn(rows, forward, SingleProcess())
    assert terms == (2 if loss == "pairs" else 7)
    assert told["loss"] == pytest.approx(float(value.detach()) / terms, rel=1e-5)
    assert any(float(gradient.norm()) > 1e-4 for gradient in wanted)
    for old, new, gradient in zip(before, parameters, wanted, strict=True):
        assert torch.allclose(old - new, gradient, atol=1e-6, rtol=1e-3)


def test_it_begins_as_the_policy_and_lifts_successes():
    learner, forward, rows = setup()
    first = learner.fill(rows[0], forward)["logp@prm"]
    assert torch.equal(first, forward.scores(forward.policy, rows[0])["logp"])
    losses = [learner.learn(rows, forward, SingleProcess())["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]
    found = learner.fill(rows[0], forward)["logp@prm"]
    gain = ((found - first) * rows[0].batch.sampled).sum(1)
    assert gain[0] > gain[1:3].max()
    assert torch.equal(forward.scores(forward.policy, rows[0])["logp"], first), "the policy stays"


def test_a_step_without_a_pair_moves_nothing():
    learner, forward, rows = setup()
    learner.learn(rows, forward, SingleProcess())
    before = deepcopy(learner.state_dict())
    assert learner.learn(rows[1:], forward, SingleProcess()) == {"loss": 0.0, "terms": 0.0}
    after = learner.state_dict()
    assert all(torch.equal(before["model"][name], after["model"][name]) for name in before["model"])


def test_it_goes_on_from_its_state():
    learner, forward, rows = setup()
    learner.learn(rows, forward, SingleProcess())
    other = ImplicitRewardModel("prm", compare_pairs, 0.05, 1e-2)
    assert other.state_dict() == {"model": {}, "optimizer": {}}
    other.load_state_dict(deepcopy(learner.state_dict()))
    assert other.state_dict()["model"].keys() == learner.state_dict()["model"].keys(), "kept until there is a policy"
    for one in (learner, other):
        one.learn(rows, forward, SingleProcess())
    assert torch.equal(learner.fill(rows[0], forward)["logp@prm"], other.fill(rows[0], forward)["logp@prm"])


def test_gradients_are_cut_at_their_largest_norm():
    learner, forward, rows = setup()
    learner.fill(rows[0], forward)
    learner._optimizer = torch.optim.SGD(learner._model.parameters(), lr=1.0)
    learner.largest_norm = 1e-3
    before = torch.cat([p.detach().flatten().clone() for p in learner._model.parameters()])
    assert learner.learn(rows, forward, SingleProcess())["grad_norm"] > 1e-3
    after = torch.cat([p.detach().flatten() for p in learner._model.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: implicit_prm(beta=0), "beta"),
        (lambda: implicit_prm(lr=2.0), "lr"),
        (lambda: implicit_prm(loss="pair"), "unknown loss of implicit_prm 'pair'.*pairs"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(QreditError, match=message):
        make()


def test_a_policy_with_adapters_is_refused(tmp_path):
    made = trainer(
        *(tmp_path, "istar('prm')"),
        learners=[implicit_prm().make_learner("logp@prm")],
        reward_funcs=length_reward,
        max_steps=1,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
    )
    with pytest.raises(QreditError, match="'logp@prm' learns in a copy of the whole policy; train without adapters"):
        made.train()


def test_istar_trains_with_it(tmp_path):
    learner = implicit_prm(lr=1e-3).make_learner("logp@prm")
    made = trainer(tmp_path, "istar('prm')", learners=[learner], reward_funcs=length_reward, max_steps=3)
    made.train()
    logged = [entry for entry in made.state.log_history if "implicit_prm/loss" in entry]
    assert len(logged) == 3
    assert any(entry["implicit_prm/terms"] > 0 for entry in logged)
    (micro,) = made._generation.microbatches
    told, batch = micro.rows.batch.extra["logp@prm"], replace(micro.rows.batch)
    assert not torch.allclose(told[batch.sampled], batch.sampler_logp[batch.sampled], atol=1e-4), "it has learned"
