"""Credit over turns: worked numbers, official formulas, and what pools of one and turns without a reward get."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from qredit.core.chain import Coefficient, Scope, chain
from qredit.core.surrogate import clipped_sequence_ratio, clipped_turn_ratio
from qredit.credit.answer_gain import answer_gain
from qredit.credit.reward import reward
from qredit.credit.turn import (
    at_last_turn,
    center_by_pool,
    divide_by_root_of_turns_to_come,
    scale_by_pool_std,
    skip_last_turn,
    sum_turns_to_come,
    turn_reward,
)
from qredit.credit.turn_certainty import next_turn_certainty, scale_by_turn_certainty
from qredit.objectives import a2tgpo, gigpo, grpo, igpo, mt_grpo
from qredit.objectives.parsing import parse
from qredit.utils.errors import QreditError
from tests.support.batches import reward_batch
from tests.support.rounding import same

NAN = float("nan")
IDS = torch.tensor([[1, 2], [1, 3], [4, 0]])


def turned(rewards, lengths, group=None, size=1, **fields):
    """Rows of so many turns of `size` tokens; `fields` hold a number for each turn, ragged."""
    width = max(lengths)
    extra = {}
    for name, rows in fields.items():
        wide = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        extra[name] = wide.long() if name == "state" else wide.double()
    extra = {name: value.repeat_interleave(size, 1) for name, value in extra.items()}
    turn = torch.arange(width).repeat_interleave(size).expand(len(lengths), -1).clone()
    return reward_batch(rewards, group, lengths=[size * length for length in lengths], turn=turn, extra=extra)


def paid(rows, rewards=None, **fields):
    """Rows of turns with these rewards."""
    return turned([0.0] * len(rows) if rewards is None else rewards, list(map(len, rows)), turn_reward=rows, **fields)


def believed(beliefs, rewards, **fields):
    """Rows whose turns begin with these likelihoods of the answer."""
    logs = [[math.log(p) if p else -math.inf for p in row] for row in beliefs]
    return turned(rewards, list(map(len, beliefs)), answer_logp_at=logs, **fields)


def values(batch, *stages):
    return chain(*stages)(batch).spread(batch)


def near(*rows):
    return pytest.approx(torch.tensor(rows).numpy(), abs=6e-4)


# --- worked numbers


def test_gigpo_gives_the_worked_numbers():
    batch = paid([[0, 1], [0, 0, 0]], [1.0, 0.0], state=[[0, 1], [0, 0, 1]])
    returns = values(batch, turn_reward(), sum_turns_to_come(0.95))
    assert returns.numpy() == near([0.95, 1, 0], [0, 0, 0])
    within = values(batch, turn_reward(), sum_turns_to_come(0.95), center_by_pool("state"))
    assert within.numpy() == near([0.633, 0.5, 0], [-0.317, -0.317, -0.5])
    assert gigpo(scale=False).credit(batch).numpy() == near([1.133, 1.0, 0], [-0.817, -0.817, -1.0])
    assert values(batch, reward(), center_by_pool("prompt")).numpy() == near([0.6, 0.6, 0], [-0.4, -0.4, -0.4])


def test_hgpo_weighs_longer_histories_more():
    weights = [float(term.factor) for term in gigpo(history=2).source.inner.sources[1:]]
    assert weights == pytest.approx([1 / 6, 1 / 3, 1 / 2])


def test_mt_grpo_gives_the_worked_numbers():
    batch = paid([[1, NAN], [0, NAN], [1, NAN], [0, NAN]], [1.0, 0.0, 0.0, 0.0])
    credit = mt_grpo().credit(batch)
    assert credit[:, 0].numpy() == near(2.366, -1.366, 0.366, -1.366)
    assert credit[:, 1].numpy() == near(1.5, -0.5, -0.5, -0.5)


def test_igpo_gives_the_worked_numbers():
    batch = believed([[0.2, 0.5], [0.2, 0.3]], [1.0, 0.0])
    assert values(batch, answer_gain()).numpy() == near([0.3, 0], [0.1, 0])
    assert igpo().credit(batch).numpy() == near([1.536, 1.664], [-1.536, -0.896])
    assert igpo(joint=False).credit(batch).numpy() == near([2.0, 1.0], [-2.0, -1.0])


@pytest.mark.parametrize(("strength", "first"), [(1.0, (2.987, 2.414, 1.414)), (0.3, (1.886, 1.714, 1.414))])
def test_a2tgpo_gives_the_worked_numbers(strength, first):
    batch = believed([[0.2, 0.5, 0.6], [0.2, 0.3, 0.2], [0.2, 0.1]], [1.0, 0.0, 0.0])
    places = values(batch, answer_gain(), center_by_pool("turn"), scale_by_pool_std("turn", 1e-6, correction=0))
    assert places.numpy() == near([1.225, 1, 0], [0, -1, 0], [-1.225, 0, 0])
    credit = a2tgpo(strength).credit(batch)
    assert credit[0].numpy() == near(*first)
    if strength == 1.0:
        assert credit[1:].numpy() == near([-1.414, -1.707, -0.707], [-1.932, -0.707, 0])


@pytest.mark.parametrize(
    ("bonus", "before", "after"),
    [(0.05, (1.550, 0.940, 0.559), (0.534, -0.076, -0.457)), (0.1, (1.580, 0.958, 0.559), (0.548, -0.074, -0.474))],
)
def test_empg_gives_the_worked_numbers(bonus, before, after):
    batch = turned([1.0], [3], sampler_entropy=[[0.2, 0.6, 1.0]])
    assert values(batch, reward(), scale_by_turn_certainty()).numpy() == near([1.519, 0.922, 0.559])
    whole = (reward() | scale_by_turn_certainty()) + bonus * next_turn_certainty()
    assert values(batch, whole).numpy() == near(before)
    assert values(batch, whole, center_by_pool("batch")).numpy() == near(after)


def test_equal_entropies_change_nothing_but_the_bonus():
    batch = turned([1.0, 0.0], [2, 1], sampler_entropy=[[0.3, 0.3], [0.3]])
    assert values(batch, reward(), scale_by_turn_certainty()).tolist() == [[1, 1], [0, 0]]
    assert values(batch, next_turn_certainty()).tolist() == [[1, 0], [0, 0]]
    lone = turned([1.0, 0.0], [1, 1], sampler_entropy=[[0.1], [0.4]])
    assert not values(lone, next_turn_certainty()).any()


def test_a_discounted_sum_counts_the_outcome_once():
    """A gain of .2 and an outcome of 1 a turn later: 1.1. A2TGPO's mode that discounts the outcome twice has 1.01."""
    assert float(values(paid([[0.2, 1.0]]), turn_reward(), sum_turns_to_come(0.9))[0, 0]) == pytest.approx(1.1)


def test_a_turns_ratio_is_the_mean_of_its_tokens():
    batch = turned([1.0], [2], size=2)
    ratios = torch.tensor([[1.1, 1.3, 0.5, 0.7]]).double()
    batch = replace(batch, sampler_logp=-ratios.log())
    logp, one = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True), torch.ones(1, 4).double()
    found = clipped_turn_ratio(1.0, 9.0)(one, logp, batch)
    means = [(1.1 * 1.3) ** 0.5] * 2 + [(0.5 * 0.7) ** 0.5] * 2
    assert (-found)[0].tolist() == pytest.approx(means)
    assert torch.autograd.grad(-found.sum(), logp)[0][0].tolist() == pytest.approx(means)
    whole = replace(batch, turn=torch.zeros_like(batch.turn))
    logp = logp.detach()
    assert same(clipped_turn_ratio(0.1, 0.1)(one, logp, whole), clipped_sequence_ratio(0.1, 0.1)(one, logp, whole))


def test_pools_and_sums_give_mica_and_gtpo_their_numbers():
    """MICA's turn part (arXiv 2603.06194) and GTPO's returns (arXiv 2511.14846) are sentences of these stages."""
    batch = paid([[3, -1, 6], [2, 2, 2]])
    assert values(batch, turn_reward(), sum_turns_to_come()).numpy() == near([8, 5, 6], [6, 4, 2])
    returns = values(batch, turn_reward(), sum_turns_to_come(), center_by_pool("turn"), scale_by_pool_std("turn", 0.0))
    own = values(batch, turn_reward(), center_by_pool("prompt"), scale_by_pool_std("prompt", 0.0))
    assert (0.5 * returns + 0.5 * own)[0].numpy() == near(0.502, -0.387, 1.168)
    assert values(paid([[0, 0, 1]]), turn_reward(), sum_turns_to_come(0.9)).numpy() == near([0.81, 0.9, 1])


def test_a_pool_of_the_batch_has_the_numbers_of_vpr():
    """arXiv 2605.10325: rewards 1, 0, 1, 0 at one place, population std."""
    batch = paid([[1], [0], [1], [0]], group=[0, 0, 1, 1])
    pooled = values(batch, turn_reward(), center_by_pool("batch"), scale_by_pool_std("batch", 1e-8, correction=0))
    assert pooled[:, 0].numpy() == near(1, -1, 1, -1)
    assert center_by_pool("batch").scope is Scope.BATCH


# --- official code, its formula written anew


def random_episodes(seed):
    """Two groups of four episodes of one to five turns in four states."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, 8).tolist()
    rewards = [rng.integers(0, 3, n).astype(float).tolist() for n in lengths]
    states = [rng.integers(0, 4, n).tolist() for n in lengths]
    outcome = [float(sum(row)) for row in rewards]
    return paid(rewards, outcome, group=[0, 0, 0, 0, 1, 1, 1, 1], state=states), rewards, states, outcome


def normalise(pool, value, scale):
    """As the official code does: the mean of a pool of one is its own value, its std 1."""
    std = np.std(pool, ddof=1) if len(pool) > 1 else 1.0
    return (value - np.mean(pool)) / (std + 1e-6) if scale else value - np.mean(pool)


@pytest.mark.parametrize("scale", [True, False])
def test_gigpo_is_the_official_formula_on_ragged_episodes(scale):
    """langfengQ/DrMAS gigpo/core_gigpo.py@3b556f2: a row for each turn, pools by the hash of what was observed."""
    for seed in range(3):
        batch, rewards, states, outcome = random_episodes(seed)
        rows = []
        for i, row in enumerate(rewards):
            for k in range(len(row)):
                total = sum(0.95 ** (j - k) * row[j] for j in range(k, len(row)))
                rows.append((i, k, i // 4, states[i][k], total))
        credit = gigpo(scale=scale).credit(batch)
        for i, k, group, state, total in rows:
            episode = normalise(outcome[4 * group : 4 * group + 4], outcome[i], scale)
            step = normalise([r[4] for r in rows if r[2:4] == (group, state)], total, scale)
            assert float(credit[i, k]) == pytest.approx(episode + step, abs=1e-5)


def test_mt_grpo_is_the_official_formula_on_two_turns():
    """SiliangZeng/Multi-Turn-RL-Agent mt_grpo_env_trainer.py@7dbdd08: the turn's part before the tool's result."""
    rng = np.random.default_rng(0)
    turn, outcome = rng.random(5), rng.random(5)
    batch = paid([[float(r), NAN] for r in turn], outcome.tolist(), size=2)
    credit = mt_grpo(strength=0.3).credit(batch)
    a_turn, a_outcome = ((x - x.mean()) / (x.std(ddof=1) + 1e-4) for x in (turn, outcome))
    expected = np.stack([a_outcome + 0.3 * a_turn] * 2 + [a_outcome] * 2, 1)
    assert credit.numpy() == pytest.approx(expected, abs=1e-5)


# --- policies: one for each case


def test_a_turn_of_reward_zero_stays_a_turn():
    """Found by reward ≠ 0 or by runs of one value it would be lost, and later turns would move up."""
    batch = paid([[0, 0, 1], [1, 0, 0]])
    pooled = values(batch, turn_reward(), center_by_pool("turn"))
    assert pooled.tolist() == [[-0.5, 0.0, 0.5], [0.5, 0.0, -0.5]]


def test_consecutive_turns_of_one_value_stay_apart():
    """Between them there is no observation: as runs of the mask they would be one turn."""
    batch = paid([[1, 1], [0, 1]], size=2)
    assert batch.observation is None
    assert values(batch, turn_reward(), sum_turns_to_come()).tolist() == [[2, 2, 1, 1], [1, 1, 1, 1]]


def test_turns_without_a_reward_leave_pools_and_add_nothing():
    batch = paid([[NAN, 4, NAN], [1, 2, 3]])
    assert values(batch, turn_reward(), center_by_pool("turn")).tolist() == [[0, 1, 0], [0, -1, 0]]
    returns = chain(turn_reward(), sum_turns_to_come(0.5))(batch)
    assert returns.spread(batch)[0].tolist() == [2.0, 4.0, 0.0]
    assert returns.keep[0].tolist() == [True, True, False]  # nobody said anything of the last turn or after it


def test_an_unscored_rollout_counts_for_nothing():
    scored = paid([[1, 0], [0, 1]], [1.0, 0.0], state=[[0, 1], [0, 1]])
    batch = paid([[1, 0], [0, 1], [5, 5]], [1.0, 0.0, NAN], state=[[0, 1], [0, 1], [0, 1]])
    for objective in (gigpo(), mt_grpo()):
        credit = objective.credit(batch)
        assert not credit[2].any()
        assert same(credit[:2], objective.credit(scored))


def test_pools_of_one_turn_get_nothing():
    batch = paid([[1, 2, 3], [4, 5]], [1.0, 0.0], state=[[0, 1, 2], [3, 4]])
    assert same(gigpo().credit(batch), grpo(epsilon_std=1e-6).credit(batch))
    longer = values(batch, turn_reward(), center_by_pool("turn"), scale_by_pool_std("turn", 0.0))
    assert float(longer[0, 2]) == 0.0  # of the rollout that is longer than all others


def test_turns_in_states_without_a_name_are_alone():
    batch = paid([[1, 2], [3, 4]], state=[[-1, 0], [-1, 0]])
    assert values(batch, turn_reward(), center_by_pool("state")).tolist() == [[0, -1], [0, 1]]


def test_states_of_other_prompts_are_other_states():
    batch = paid([[1], [3], [10], [20]], group=[0, 0, 1, 1], state=[[0]] * 4)
    assert values(batch, turn_reward(), center_by_pool("state"))[:, 0].tolist() == [-1, 1, -5, 5]


def test_a_history_must_be_whole_and_equal():
    batch = paid([[0, 1, 5], [0, 3, 0], [2, 9]], state=[[0, 1, 2], [0, 1, 2], [3, 1]])
    shared = values(batch, turn_reward(), center_by_pool("state@1"))
    assert shared.tolist() == [[0, -1, 2.5], [0, 1, -2.5], [0, 0, 0]]
    assert values(batch, turn_reward(), center_by_pool("state@2")).tolist() == [[0, 0, 2.5], [0, 0, -2.5], [0, 0, 0]]


def test_turns_that_are_context_keep_their_places():
    """The second row goes on from the first one's first turn, which is context there; the third ended beside it."""
    batch = paid([[0, 10], [NAN, 20], [2]], state=[[7, 8], [7, 8], [7]])
    batch = replace(batch, sampled=batch.mask & ~torch.tensor([[False, False], [True, False], [False, False]]))
    for pool in ("turn", "sibling"):
        assert values(replace(batch, ids=IDS), turn_reward(), center_by_pool(pool)).tolist() == [
            [-1, -5],
            [0, 5],
            [1, 0],
        ]
    assert values(batch, turn_reward(), center_by_pool("state@1")).tolist() == [[0, -5], [0, 5], [0, 0]]


def test_a_gold_answer_behind_a_turn_has_no_state():
    batch = paid([[1, 2, 5], [3, 6, 5]], state=[[7, 8, -1], [7, 8, -1]])
    gold = torch.tensor([False, False, True]).expand(2, 3)
    turn = torch.tensor([[0, 1, 1], [0, 1, 1]])
    batch = replace(
        batch, answer=gold, sampled=batch.mask & ~gold, rationale=batch.mask & ~gold, response=None, turn=turn
    )
    assert values(batch, turn_reward(), center_by_pool("state")).tolist() == [[-1, -2, 0], [1, 2, 0]]


def test_a_rollout_may_stand_in_a_pool_twice():
    batch = paid([[1, 2, 6]], state=[[0, 0, 0]])
    assert values(batch, turn_reward(), center_by_pool("state")).tolist() == [[-2, -1, 3]]


def test_empty_pools_and_rows_are_finite():
    batch = paid([[NAN, NAN], [NAN, 1]], [1.0, 0.0], state=[[0, 0], [0, 1]])
    batch = replace(batch, sampled=batch.sampled & torch.tensor([[True], [False]]))
    for objective in (gigpo(), gigpo(history=1), mt_grpo()):
        credit = objective.credit(batch)
        assert credit.isfinite().all()
        assert not credit[1].any()


def test_one_turn_episodes_have_the_outcome_alone():
    batch = paid([[1], [0], [0]], [1.0, 0.0, 0.0])
    assert same(mt_grpo().credit(batch), grpo().credit(batch))
    direct = believed([[0.2], [0.9], [0.4]], [1.0, 0.0, 0.0])
    assert igpo().credit(direct)[:, 0].numpy() == near(1.414, -0.707, -0.707)


def test_the_last_turn_is_that_of_each_rollout():
    batch = turned([5.0, 7.0], [1, 3])
    assert values(batch, reward(), at_last_turn()).tolist() == [[5, 0, 0], [0, 0, 7]]
    assert values(batch, reward(), skip_last_turn()).tolist() == [[0, 0, 0], [7, 7, 0]]


def test_a_sum_of_turns_can_keep_the_size_of_one():
    batch = paid([[1, 1, 1, 1], [1, 1]])
    rooted = values(batch, turn_reward(), sum_turns_to_come(), divide_by_root_of_turns_to_come())
    assert rooted.tolist() == [[2, pytest.approx(3**0.5), pytest.approx(2**0.5), 1], [pytest.approx(2**0.5), 1, 0, 0]]


def test_a_belief_that_is_zero_or_unknown():
    batch = believed([[0.0, 0.5, 0.5]], [1.0])
    assert values(batch, answer_gain())[0].tolist() == pytest.approx([0.5, 0.0, 0.0])
    assert answer_gain(logarithm=True)(batch).keep[0].tolist() == [False, True, False]
    unknown = turned([1.0], [3], answer_logp_at=[[-1.0, NAN, -2.0]])
    assert not answer_gain()(unknown).keep.any()
    with pytest.raises(QreditError, match="answer_logp_at must be"):
        answer_gain()(turned([1.0], [2], answer_logp_at=[[0.5, 0.5]]))


def test_what_is_missing_and_unknown_pools_are_named():
    bare = turned([1.0, 0.0], [2, 2])
    for objective, name in ((gigpo(), "state"), (mt_grpo(), "turn_reward"), (igpo(), "answer_logp_at")):
        with pytest.raises(QreditError, match=f"needs the batch field '{name}'"):
            objective.credit(bare)
    with pytest.raises(
        QreditError, match=r"center_by_pool\(pool='state', keep_lone=False\) needs the batch field 'state'"
    ):
        center_by_pool("state")(reward()(bare), bare)
    for pool in ("prompts", "state@", "state@-1", "turn@1", ""):
        with pytest.raises(QreditError, match="no pool"):
            center_by_pool(pool)
    assert parse("turn_reward() | center_by_pool('state@2')").source == turn_reward() | center_by_pool("state@2")


def test_a_pool_of_equal_turns_leaves_no_residue():
    batch = paid([[0.1, 0.1], [0.1, 0.1, 0.1]])
    assert not values(batch, turn_reward(), center_by_pool("prompt"), scale_by_pool_std("prompt", 0.0)).any()


def test_tokens_of_no_turn_and_of_tools_get_nothing():
    batch = paid([[1, 2, 3], [2, 3, 1]], size=2)
    turn = batch.turn.clone()
    turn[0, 0] = -1
    seen = torch.zeros_like(batch.mask)
    seen[:, 3] = True
    batch = replace(batch, turn=turn, observation=seen, sampled=batch.mask & ~seen, rationale=batch.mask & ~seen)
    for stage in (sum_turns_to_come(), center_by_pool("turn"), scale_by_pool_std("turn")):
        given = Coefficient(torch.ones(2, 1, dtype=torch.float64))
        assert not stage(given, batch).spread(batch)[seen].any()
    credit = values(batch, turn_reward())
    assert credit[0].tolist() == [0, 1, 2, 0, 3, 3]
