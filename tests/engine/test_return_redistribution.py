"""Rewards of turns by regression: the least-squares optimum by closed form, what counts, and its state."""

import math
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from qredit.engine.collective import SingleProcess
from qredit.engine.return_redistribution import ReturnRedistribution
from qredit.fields import redistributed_return
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.utils.errors import QreditError

CPU = torch.device("cpu")
EPISODES = (  # the reward, and two numbers for each turn
    (1.0, ((0.0, 1.0), (1.0, 0.0))),
    (0.0, ((0.0, 0.0),)),
    (2.0, ((1.0, 1.0), (1.0, 1.0), (0.0, 0.0))),
    (0.5, ((1.0, 0.0),)),
    (2.0, ((0.0, 1.0), (0.0, 1.0))),
)


def episode(reward, turns, **changes):
    """Each turn says two tokens; all but the last are answered by one."""
    segments = []
    for number, _ in enumerate(turns):
        segments.append(Segment((1, 2), Role.ANSWER, True, turn=number))
        if number + 1 < len(turns):
            segments.append(Segment((3,), Role.OBSERVATION, False, turn=number))
    fields = {
        f"turn_feature@{place}": [turns[one.turn][place] for one in segments for _ in one.ids] for place in range(2)
    }
    return replace(
        Trajectory((5,), tuple(segments), EndReason.ANSWER, reward=reward, fields=fields, golds=((7,),)), **changes
    )


def rows(*episodes, tails=("response",)):
    return collate(episodes, tails, 0, 0, CPU)


def fitted(learner, data, steps):
    for _ in range(steps):
        told = learner.learn(data, None, SingleProcess())
    return told


def near(left, right):
    return torch.allclose(left, right, atol=1e-4)


def linear(**changes):
    return ReturnRedistribution(**{"features": 2, "lr": 0.1, "layers": 1, "width": 1, "updates": 20} | changes)


def test_its_optimum_is_that_of_least_squares():
    data = [rows(*(episode(*one) for one in EPISODES[:3])), rows(*(episode(*one) for one in EPISODES[3:]))]
    learner = linear()
    told = fitted(learner, data, 15)
    sums = [[sum(column) for column in zip(*turns, strict=True)] for _, turns in EPISODES]
    design = torch.tensor([[*row, len(turns)] for row, (_, turns) in zip(sums, EPISODES, strict=True)])
    outcomes = torch.tensor([[reward] for reward, _ in EPISODES])
    wanted = torch.linalg.lstsq(design, outcomes).solution[:, 0]
    assert torch.allclose(torch.cat([p.flatten() for p in learner._net.parameters()]), wanted, atol=1e-3)
    left = float((design @ wanted - outcomes[:, 0]).square().mean())
    assert left > 0.01
    assert told["loss"] == pytest.approx(left, abs=1e-4)
    assert told["variance"] == pytest.approx(float(outcomes.var(unbiased=False)), abs=1e-6)
    found = learner.fill(data[0], None)["turn_reward"]
    worth = [float(torch.tensor([*numbers, 1.0]) @ wanted) for numbers in EPISODES[0][1]]
    assert found[0, :5].tolist() == pytest.approx([worth[0]] * 3 + [worth[1]] * 2, abs=2e-3)
    assert found[0, 5:].abs().sum() == 0, "nothing on padding"


def test_sums_of_its_rewards_come_to_the_returns():
    """An outcome that no linear f tells: 1 where a turn has one number and not the other."""
    corners = [(a, b) for a in (0.0, 1.0) for b in (0.0, 1.0)]
    told = [episode(float(sum(a != b for a, b in pair)), pair) for pair in pairwise(corners)]
    told += [episode(float(a != b), ((a, b),)) for a, b in corners]
    learner = redistributed_return(2, lr=0.01, width=16, updates=50).make_learner("turn_reward")
    data = [rows(*told)]
    assert learner.fill(data[0], None)["turn_reward"].abs().max() == 0, "it begins at 0"
    first = learner.learn(data, None, SingleProcess())
    last = fitted(learner, data, 6)
    assert last["loss"] < 0.02 * first["variance"] < first["loss"]
    sampled = data[0].batch.sampled.float() / 2  # two tokens of each turn
    sums = (learner.fill(data[0], None)["turn_reward"] * sampled).sum(1)
    assert torch.allclose(sums, data[0].batch.reward.float(), atol=0.25)


def test_unscored_and_gold_rows_are_not_fitted():
    first, second = (episode(*one) for one in EPISODES[:2])
    odd = episode(math.nan, EPISODES[2][1])
    learners = linear(), linear()
    learners[0].learn([rows(first, second)], None, SingleProcess())
    learners[1].learn([rows(first, second, odd, tails=("answer", "response"))], None, SingleProcess())
    assert all(map(near, learners[0]._net.parameters(), learners[1]._net.parameters()))
    before = deepcopy(learners[0].state_dict())
    for other in (rows(odd), rows(first, second, tails=("answer",))):
        assert learners[0].learn([other], None, SingleProcess()) == {"loss": 0.0, "variance": 0.0}
    assert all(torch.equal(before["net"][name], value) for name, value in learners[0].state_dict()["net"].items())


def test_turns_that_another_sampled_count_in_the_sum():
    """The beginning of a branch is shown and not sampled; the reward is that of the whole episode."""
    whole = episode(*EPISODES[0])
    branch = replace(whole, segments=(replace(whole.segments[0], sampled=False), *whole.segments[1:]), branch=1)
    learners = linear(), linear()
    for learner, one in zip(learners, (whole, branch), strict=True):
        learner.learn([rows(one)], None, SingleProcess())
    assert all(map(near, learners[0]._net.parameters(), learners[1]._net.parameters()))


def test_it_goes_on_from_its_state():
    data = [rows(*(episode(*one) for one in EPISODES))]
    learner, other = (redistributed_return(2, width=8).make_learner("turn_reward") for _ in range(2))
    learner.learn(data, None, SingleProcess())
    other.load_state_dict(deepcopy(learner.state_dict()))
    for one in (learner, other):
        one.learn(data, None, SingleProcess())
    assert torch.equal(learner.fill(data[0], None)["turn_reward"], other.fill(data[0], None)["turn_reward"])
    assert learner.fill(data[0], None)["turn_reward"].abs().max() > 0


@pytest.mark.parametrize("changes", [{"features": 3}, {"layers": 2}, {"width": 9}])
def test_a_state_of_another_network_is_refused(changes):
    kept = redistributed_return(2, width=8).make_learner("turn_reward").state_dict()
    other = redistributed_return(**{"features": 2, "width": 8} | changes).make_learner("turn_reward")
    with pytest.raises(QreditError, match="'redistributed_return' has layers of 2x8, 8x8, 8x1, this run's has"):
        other.load_state_dict(kept)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"lr": 0}, "lr"), ({"features": 0}, "features of redistributed_return"), ({"layers": 1.5}, "layers of")],
)
def test_wrong_arguments_are_refused(changes, words):
    with pytest.raises(QreditError, match=words):
        redistributed_return(**{"features": 2} | changes)
