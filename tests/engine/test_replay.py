"""Replay: what rules choose and their schedule by hand, their losses against formulas, what is kept and how long."""

import math
from dataclasses import replace

import pytest
import torch

from qredit.core.objective import Credited
from qredit.core.reduce import mean_per_token, sum_per_rollout
from qredit.engine.backward import AutogradBackward
from qredit.engine.replay import REGISTRY, pool, spear
from qredit.engine.replay.kept_credit import KEPT_CREDIT
from qredit.engine.replay.memory import ReplayMemory
from qredit.engine.replay.parsing import parse_replay
from qredit.engine.replay.protocol import Remembered
from qredit.engine.replay.rows import KeptRow, cut_rows, join_rows
from qredit.engine.replay.steps import Replay
from qredit.engine.scorer import Scorer
from qredit.engine.step import ScoredMicrobatch
from qredit.objectives import grpo
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.share import share_prefix
from qredit.utils.errors import QreditError
from tests.support import tiny

CPU = torch.device("cpu")
WIDE = {"low": 1e6, "high": 2e6}  # a band that holds no token
REWARDS = [1.0, 1.0, 0.5, 0.375, 0.1, 0.7]


def rule(**changes):
    return spear(**({"buffer": 2, "baseline": 8, "steps": 4} | WIDE | changes))


def pooled(**changes):
    return pool(**({"draw": 2, "weight": 1.0, "epsilon_low": 0.2, "epsilon_high": 0.2} | changes))


def kept(rewards, means=(0.0, 0.25, 0.5, 1.0), stds=(0.1, 0.2, 0.6, 0.3), ages=None):
    ages = torch.tensor([1] * len(rewards) if ages is None else ages)
    rewards, means, stds = (torch.tensor(values, dtype=torch.float64) for values in (rewards, means, stds))
    return Remembered(rewards, ages, means, stds)


def rollout(prompt, reward, *turns, logp=-3.0):
    """A rollout of turns of such lengths."""
    generator = torch.Generator().manual_seed(int(100 * prompt + 10 * sum(turns) + len(turns)))
    segments = []
    for number, length in enumerate(turns):
        ids = torch.randint(10, 90, (length,), generator=generator).tolist()
        segments.append(Segment(tuple(ids), Role.THINK, True, logp=(logp,) * length, turn=number))
        if number + 1 < len(turns):
            segments.append(Segment((7, 8), Role.OBSERVATION, False, turn=number))
    return Trajectory((5, 6 + prompt), tuple(segments), EndReason.ANSWER, group=0, reward=reward)


def learned(*rollouts):
    """A micro-batch of one group, as a step on it leaves it."""
    rows = collate(rollouts, ("response",), 0, 0, CPU)
    return ScoredMicrobatch(grpo(), rows, rows.batch, grpo().evaluate(rows.batch))


def replay(reduction=None, rollouts=8, made=None, **changes):
    policy = tiny.model()
    share_prefix(policy)
    scorer = Scorer(
        *(frozenset(), ("response",), 1.0, pack, lambda: policy, CPU, lambda: math.inf), rows_per_forward=10_000
    )
    return policy, Replay(
        made or rule(**changes), reduction or sum_per_rollout(), scorer, AutogradBackward(), rollouts, 7
    )


def test_enough_good_ones_are_compared_with_the_median():
    """Means 0, 1/4, 1/2, 1: median 3/8. Four of six are above, more than 1.5 · 2; five are not below."""
    chosen = rule().choose(kept(REWARDS), seed=1)
    assert (chosen.baseline, len(chosen.places)) == (0.375, 2)
    assert chosen.advantage.tolist() == [REWARDS[place] - 0.375 for place in chosen.places]
    found = [rule().choose(kept(REWARDS), seed).places.tolist() for seed in range(40)]
    assert {place for places in found for place in places} == {0, 1, 2, 3, 5}, "each usable one, at random"
    assert all(places == sorted(places) for places in found)
    assert rule().choose(kept(REWARDS[1:]), seed=1) is None, "three are not more than 1.5 · 2"
    assert len(rule(buffer=3).choose(kept([1.0] * 6), seed=1).places) == 3
    assert len(rule(buffer=9).choose(kept([1.0] * 15), seed=1).places) == 8, "a power of two"
    assert rule().choose(kept([], [], []), seed=1) is None


def test_advantages_are_scaled_by_the_median_deviation():
    chosen = rule(scale=True).choose(kept(REWARDS), seed=1)
    wanted = torch.tensor([(REWARDS[place] - 0.375) / (0.25 + 1e-6) for place in chosen.places], dtype=torch.float64)
    assert torch.allclose(chosen.advantage, wanted, rtol=1e-12)


def test_the_factor_grows_along_half_a_cosine():
    """The sheet's: S = 200 gives 0, 1/2, 1 at 0, 100, 200."""
    made = rule(steps=200, weight=3.0)
    assert [made.factor(step) for step in (0, 100, 200, 300)] == pytest.approx([0.0, 1.5, 3.0, 3.0])
    assert made.factor(50) == pytest.approx(3 * (1 - math.sqrt(0.5)) / 2)
    assert rule(steps=0).factor(1) == 1.0


def test_good_rollouts_are_kept_until_they_are_old():
    memory = ReplayMemory(rule(tolerance=2, baseline=3))
    memory.observe(learned(rollout(0, 1.0, 3, 2), rollout(0, 0.0, 4), rollout(0, math.nan, 2)))
    assert memory.kept == [], "those of the generation in progress are not chosen from"
    memory.end_generation(1)
    assert [one.reward for one in memory.kept] == [1.0], "only the one of a positive advantage"
    memory.observe(learned(rollout(1, 0.25, 3), rollout(1, 0.75, 2)))
    memory.end_generation(3)
    assert [(one.step, one.reward) for one in memory.kept] == [(1, 1.0), (3, 0.75)]
    memory.end_generation(4)
    assert [one.step for one in memory.kept] == [3], "older than two steps"
    assert memory._groups.tolist() == [[0.5, 0.5], [0.5, 0.25]]
    for _ in range(3):
        memory.observe(learned(rollout(2, 1.0, 3), rollout(2, 1.0, 2)))
    memory.end_generation(5)
    assert memory._groups.tolist() == [[1.0, 0.0]] * 3, "those of the last groups"


def test_what_is_chosen_empties_the_memory():
    _, made = replay(buffer=1, steps=0)
    made.observe(learned(rollout(0, 1.0, 3), rollout(0, 1.0, 2), rollout(0, 0.0, 4), rollout(0, 0.0, 2)))
    assert list(made.iterate_losses(None, 1)) == []
    assert made.logged == {"replay/rows": 0.0, "replay/kept": 2.0, "replay/factor": 1.0}
    made.observe(learned(rollout(1, 1.0, 3), rollout(1, 0.0, 2)))
    assert len(list(made.iterate_losses(made.scorer.policy(), 2))) == 1
    assert made.logged["replay/rows"] == 1.0
    assert made.logged["replay/baseline"] == 0.5
    assert made.logged["replay/kept"] == 1.0, "those of this generation alone"


def test_cut_rows_are_joined_as_they_were():
    first = learned(rollout(0, 1.0, 3, 2), rollout(0, 0.0, 4)).rows
    second = learned(rollout(1, 1.0, 6), rollout(1, 0.5, 2)).rows
    cut = [*cut_rows(first, torch.tensor([True, True])), *cut_rows(second, torch.tensor([True, False]))]
    loaded = [KeptRow.load(one.state_dict()) for one in cut]
    joined = join_rows(loaded, torch.tensor([0.5, 0.25, 0.125]).double(), 3, CPU)
    assert KEPT_CREDIT not in joined.batch.present
    assert join_rows(loaded, None, 3, CPU).batch.reward.tolist() == [1.0, 0.0, 1.0]
    assert joined.batch.group.tolist() == [0, 0, 1], "both generations called their group 0"
    assert joined.batch.reward.tolist() == [0.5, 0.25, 0.125]
    for row, (given, at) in enumerate([(first, 0), (first, 1), (second, 0)]):
        width = int(given.batch.mask[at].sum())
        for name in ("ids", "mask", "sampled", "rationale", "response", "turn", "sampler_logp"):
            own, wanted = getattr(joined.batch, name)[row], getattr(given.batch, name)[at]
            assert torch.equal(own[:width], wanted[:width]), name
        assert not joined.batch.mask[row, width:].any()
        assert torch.equal(joined.prompt_ids[row], given.prompt_ids[at])
    assert joined.batch.observation[0].sum() == 2


@pytest.mark.parametrize("reduction", [sum_per_rollout(), mean_per_token()])
def test_the_loss_is_clip_covs_with_the_old_ratio(reduction):
    """Against the formula, token by token; a share of 1 drops every token of the band."""
    rollouts = [rollout(0, 1.0, 3, 2, logp=-5.9), rollout(0, 0.5, 4, logp=-5.6), rollout(0, 0.0, 6)]
    policy, made = replay(reduction, buffer=1, steps=4, low=0.0, high=0.02, share=1.0, epsilon_high=0.1)
    made.memory.observe(learned(*rollouts))
    rows = list(cut_rows(learned(*rollouts[:2]).rows, torch.tensor([True, True])))
    loss = made._loss(policy, rows, torch.tensor([0.5, 0.125]).double(), 3, factor=0.25)
    joined = join_rows(rows, torch.tensor([0.5, 0.125]).double(), 3, CPU)
    own = joined.batch
    logp = made._scorer.score(policy, joined)["logp"].double()
    advantage = own.reward[:, None].expand_as(logp)
    counted = own.sampled
    covariance = (advantage - advantage[counted].mean()) * (logp - logp[counted].mean()).detach()
    ratio = (logp - own.sampler_logp.double()).exp()
    clipped = (ratio.clamp(0.8, 1.1) * advantage) < ratio * advantage
    dropped = counted & (covariance > 0) & (covariance < 0.02) & ~clipped
    assert dropped.any()
    assert (counted & clipped).any()
    per_token = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.1) * advantage)
    total = torch.where(counted & ~dropped, per_token, 0.0).sum()
    wanted = 0.25 * total / (2 if reduction == sum_per_rollout() else int(counted.sum()))
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)
    parameters = list(policy.parameters())
    for found, right in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(wanted, parameters), strict=True
    ):
        assert torch.allclose(found, right.float(), rtol=1e-3, atol=1e-6)


def test_each_step_sees_the_weights_that_the_last_one_left():
    policy, made = replay(buffer=4, rollouts=2, steps=0)
    good = [0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]  # with seven of 0 the mean is 3/8
    made.observe(learned(*(rollout(prompt, reward, 3, 2) for prompt, reward in enumerate([*good] + [0.0] * 7))))
    assert list(made.iterate_losses(policy, 1)) == []
    choose, seen = made.rule.choose, []
    object.__setattr__(made.rule, "choose", lambda *given: seen.append(choose(*given)) or seen[-1])
    losses = []
    for loss in made.iterate_losses(policy, 2):
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.zero_()
    assert len(losses) == 2
    even = -(1 / len(tiny.tokenizer()))  # zero weights make every token as likely as any other
    (chosen,) = seen
    assert len(chosen.places) == 4
    assert losses[1] == pytest.approx(float(chosen.advantage[2:].mean()) * 5 * even * math.exp(3.0), rel=1e-5)


def test_the_pool_draws_each_rollout_as_often_as_any():
    """Three of seven, of which one is too old: each of the others stands in half of the draws, up to chance."""
    drawn = [pooled(draw=3, steps=9).choose(kept([0.0] * 7, ages=[10, 9, 9, 9, 1, 1, 1]), seed) for seed in range(400)]
    places = [tuple(one.places.tolist()) for one in drawn]
    assert all(len(set(one)) == 3 and list(one) == sorted(one) for one in places)
    counts = [sum(place in one for one in places) for place in range(7)]
    assert counts[0] == 0
    assert all(abs(count - 200) < 40 for count in counts[1:]), "four standard deviations of 400 draws"
    assert len(set(places)) == 20, "each three of six"
    again = pooled(draw=3, steps=9).choose(kept([1.0] * 7, ages=[10, 9, 9, 9, 1, 1, 1]), 5)
    assert tuple(again.places.tolist()) == places[5], "a function of the seed, whatever the rewards"


def test_the_pool_draws_all_where_there_are_few():
    assert pooled(draw=3, steps=2).choose(kept([0.5, 0.5, 0.5], ages=[3, 2, 1]), 0).places.tolist() == [1, 2]
    assert pooled(steps=2).choose(kept([0.5], ages=[3]), 0) is None
    assert pooled().choose(kept([]), 0) is None


def test_the_pool_holds_all_that_was_scored_and_counted():
    rows = learned(rollout(0, 1.0, 3), rollout(0, 1.0, 2), rollout(0, math.nan, 4), rollout(0, 0.0, 2)).batch
    value = torch.zeros(rows.mask.shape)
    weight = torch.ones(rows.mask.shape)
    weight[1] = 0.0
    assert pooled().keep(rows, Credited(value)).tolist() == [True, True, False, True]
    assert pooled().keep(rows, Credited(value, weight)).tolist() == [True, False, False, True]


def test_the_pool_is_drawn_from_until_a_rollout_is_old():
    """Nobody is lost: before each draw the pool holds what the last two steps sampled, drawn before or not."""
    policy, made = replay(made=pooled(draw=3, steps=2))
    sizes, seen = [2, 1, 3, 2], []
    for step, size in enumerate(sizes, 1):
        assert [one.step for one in made.memory.kept] == [
            origin for origin in range(max(step - 2, 1), step) for _ in range(sizes[origin - 1])
        ]
        made.observe(learned(*(rollout(prompt, prompt % 2, 2) for prompt in range(size))))
        seen.append(len(list(made.iterate_losses(policy, step))))
        assert made.logged["replay/rows"] == min(3, sum(sizes[max(step - 3, 0) : step - 1]))
        assert "replay/baseline" not in made.logged
    assert seen == [0, 1, 1, 1]
    assert made.memory._groups.tolist() == [], "it compares nothing, so no statistics pile up"


@pytest.mark.parametrize("reduction", [sum_per_rollout(), mean_per_token()])
def test_the_pools_loss_is_ppos_of_the_credit_once_given(reduction):
    """Against the formula, with coefficients that differ between tokens, through a checkpoint and back."""
    rows = learned(rollout(0, 1.0, 3, 2, logp=-5.9), rollout(0, 0.0, 4, logp=-7.0), rollout(0, 0.5, 6))
    credit = torch.linspace(-1, 1, rows.batch.mask.numel()).view_as(rows.batch.mask)
    credit[:, ::2] *= -1
    credit = torch.where(rows.batch.sampled, credit, 0.0)
    made_by = pooled(weight=0.25, epsilon_high=0.1, dual_clip=3.0)
    policy, made = replay(reduction, made=made_by)
    made.observe(replace(rows, credited=Credited(credit)))
    loaded = ReplayMemory(made_by, {KEPT_CREDIT})
    loaded.load_state_dict(made.memory.state_dict())
    loaded.end_generation(1)
    chosen = loaded.kept[1::-1]
    loss = made._loss(policy, chosen, None, 3, made.rule.factor(1))
    joined = join_rows(chosen, None, 3, CPU)
    own = joined.batch
    assert torch.equal(own.extra[KEPT_CREDIT][0, : own.mask[0].sum()], credit[1][rows.batch.mask[1]])
    assert torch.equal(own.extra[KEPT_CREDIT][1, : own.mask[1].sum()], credit[0][rows.batch.mask[0]])
    logp = made._scorer.score(policy, joined)["logp"].double()
    ratio = torch.where(own.sampled, (logp - own.sampler_logp.double()).exp(), 1.0)
    value = own.extra[KEPT_CREDIT].double()
    per_token = -torch.minimum(ratio * value, ratio.clamp(0.8, 1.1) * value)
    assert ((ratio > 1.1) & (value > 0)).any()
    assert ((ratio > 3) & (value < 0)).any()
    per_token = torch.where(value < 0, torch.minimum(per_token, -3.0 * value), per_token)
    wanted = 0.25 * per_token.sum() / (2 if reduction == sum_per_rollout() else int(own.sampled.sum()))
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)
    parameters = list(policy.parameters())
    for found, right in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(wanted, parameters), strict=True
    ):
        assert torch.allclose(found, right.float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: parse_replay("speer(buffer=1)"), "spear"),
        (lambda: parse_replay("spear(buffer=32)"), "baseline"),
        (lambda: parse_replay("tests.support.episodes.Counting()"), "makes no rule: Counting has no"),
        (lambda: rule(buffer=0), "spear: buffer must be a whole number, at least 1"),
        (lambda: rule(steps=-1), "spear: steps must be a whole number, at least 0"),
        (lambda: rule(weight=0.0), "weight"),
        (lambda: rule(share=2.0), "share"),
        (lambda: parse_replay("pool(draw=4, steps=9, weight=1)"), "epsilon_low"),
        (lambda: pooled(draw=0), "pool: draw must be a whole number, at least 1"),
        (lambda: pooled(steps=0), "pool: steps must be a whole number, at least 1"),
        (lambda: pooled(weight=0.0), "weight"),
        (lambda: pooled(epsilon_low=1.5), "lower clip"),
        (lambda: ReplayMemory(rule()).load_state_dict({}), "holds nothing to replay"),
        (lambda: ReplayMemory(rule()).load_state_dict({"rule": "spear()"}), "trained with replay spear"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(made, message):
    with pytest.raises(QreditError, match=message) as found:
        made()
    assert "\n" not in str(found.value)


def test_every_rule_is_read_back_from_its_text():
    assert list(REGISTRY) == ["pool", "spear"]
    for made in (rule(scale=True), pooled(dual_clip=3.0)):
        assert parse_replay(repr(made)) == made
    assert replace(rule(), buffer=3) != rule()
