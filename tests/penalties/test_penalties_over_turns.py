"""LLDS and EPO on rows of a played episode: turns are those that were sampled, observations and forced tokens are out.

think think close answer | observation | think (closing, forced) answer
         turn 0                               turn 1
"""

from dataclasses import replace

import pytest
import torch

from qredit.objectives import epo, llds
from qredit.penalties.likelihood import keep_likelihood
from qredit.penalties.smoothing import entropy_smoothing
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory


def played(lost, reward=1.0, group=0):
    """A row of the episode, scored where each of its 10 tokens has lost this much log-likelihood."""
    parts = [
        *((Role.THINK, True, 0, 2), (Role.CLOSE, True, 0, 1), (Role.ANSWER, True, 0, 1)),
        *((Role.OBSERVATION, False, 0, 3), (Role.THINK, True, 1, 1), (Role.CLOSE, False, 1, 1)),
        (Role.ANSWER, True, 1, 1),
    ]
    segments = tuple(Segment((5,) * size, role, sampled, (-1.0,) * size, turn) for role, sampled, turn, size in parts)
    one = Trajectory((1, 2), segments, EndReason.ANSWER, golds=((7,),), group=group, reward=reward)
    batch = collate([one], ("response",), 0, 0, torch.device("cpu")).batch
    return replace(batch, logp=batch.sampler_logp - torch.tensor([lost]), sampler_logp=batch.sampler_logp.double())


def priced(penalty, batch):
    """Value and slope of the penalty, divided by its denominator."""
    coefficient = torch.ones(batch.mask.shape)
    logp = batch.logp.clone().requires_grad_()
    weight = penalty.weight(coefficient, batch)
    value = penalty.numerator(logp, batch, weight) / penalty.denominator(batch, coefficient)
    return float(value.detach()), torch.autograd.grad(value, logp)[0][0].tolist()


NOISE = [9.0, 9.0, 9.0]  # what an observation lost is nobody's business


def test_llds_gates_each_turn_of_an_episode_by_its_own_loss():
    """Turn 0 lost .2 and pays .3; turn 1 gained .1 and pays nothing. Six tokens were sampled: .2 · .3 / 6 = .01."""
    value, slope = priced(keep_likelihood(0.2), played([0.3, -0.1, 0.0, 0.0, *NOISE, 0.2, 9.0, -0.3]))
    assert value == pytest.approx(0.01)
    assert slope == pytest.approx([-0.2 / 6, *[0.0] * 9], abs=1e-7)


def test_llds_holds_the_answer_by_the_searches_before_it():
    """LLDS-MA: one search of two that are wanted, so the answer's loss of .6 counts half: .2 · (.3 + .5·.6) / 6."""
    value, slope = priced(keep_likelihood(0.2, searches=2), played([0.0, 0.0, 0.0, 0.0, *NOISE, 0.3, 9.0, 0.6]))
    assert value == pytest.approx(0.02)
    assert slope == pytest.approx([*[0.0] * 7, -0.2 / 6, 0.0, -0.1 / 6], abs=1e-7)


def test_epo_means_over_the_tokens_of_all_turns():
    """The worked hinge of EPO: H = (.5, .9 | 1.5 …), H̄ = 1, band .8 to 1.2, a = .1, β = 2 at the start."""
    entropy = torch.tensor([[0.5, 0.9, 1.5, 0.5, *NOISE, 0.9, 9.0, 1.5]])
    batch = replace(played([0.0] * 10), entropy=entropy)
    penalty = entropy_smoothing(1.0, low=0.8, high=1.2, height=0.1, decay=1.0, progress=0.0)
    weight = penalty.weight_from(torch.ones(batch.mask.shape), batch, {"sum": 3.0, "steps": 3})
    down, up = -0.2, 0.2
    assert weight[0].tolist() == pytest.approx([down, 0.0, up, down, 0.0, 0.0, 0.0, 0.0, 0.0, up])
    assert penalty.denominator(batch) == 6.0
    state = epo(0.8, 1.2, 0.1, 1.0).at(0.0).statistics(batch, {"penalty entropy_smoothing": {"sum": 0.0, "steps": 0}})
    assert state["penalty entropy_smoothing"] == {"entropy": pytest.approx(5.8), "tokens": 6.0}


def test_llds_trains_no_observation():
    objective, batch = llds(kl=0.0), played([0.3, -0.1, 0.0, 0.0, *NOISE, 0.2, 9.0, -0.3])
    credited = objective.evaluate(batch)
    assert not credited.value[~batch.sampled].any()
    assert not credited.penalties[0][~batch.sampled].any()
