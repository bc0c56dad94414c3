"""Published rules over turns: worked numbers, official formulas, and what pools of one and missing values get."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from qredit.core.chain import Coefficient
from qredit.credit.answer_support import scale_by_answer_share, support_gain
from qredit.credit.implicit_reward import implicit_reward
from qredit.credit.prefix_tree import average_over_branches
from qredit.credit.reward import reward, scale_by_outcome
from qredit.credit.turn import (
    at_last_turn,
    center_by_pool,
    scale_by_pool_std,
    skip_equal_pools,
    skip_last_turn,
    subtract_pool_mean_of_others,
    sum_over_turns,
    sum_turns_to_come,
    turn_reward,
)
from qredit.credit.turn_critic import token_advantage, turn_advantage, turn_return
from qredit.objectives import (
    arpo,
    bi_level_gae,
    f_grpo,
    grpo,
    gtpo,
    istar,
    matchtir,
    mica,
    poad,
    r3_rag,
    siop,
    slate,
    tree_grpo,
    turn_ppo,
    vpr,
)
from qredit.utils.errors import QreditError
from tests.credit.test_turn_credit import NAN, near, normalise, paid, random_episodes, turned, values
from tests.support.rounding import same


def told(batch, **rows):
    """The batch with a number for each token, or for each rollout."""
    extra = {name.replace("_at_", "@"): torch.tensor(value, dtype=torch.float64) for name, value in rows.items()}
    return replace(batch, extra={**batch.extra, **extra})


def on_trees(rewards, trees, **fields):
    batch = turned(rewards, [1] * len(rewards), **fields)
    return replace(batch, extra={"tree": torch.tensor(trees)})


# --- worked numbers


def test_matchtir_gives_the_worked_number_of_a_lone_turn():
    """One rollout has a third turn: r = 0.7 and z(R) = 0.707; the released code adds the two, halved."""
    rows = [[0.0, 0.0, 0.7], [0.0, 0.0]]
    batch = paid(rows, [0.7, 0.0])
    assert float(matchtir(keep_lone=True).credit(batch)[0, 2]) == pytest.approx(0.704, abs=6e-4)
    assert float(matchtir().credit(batch)[0, 2]) == pytest.approx(0.354, abs=6e-4)


def test_mica_gives_the_worked_numbers():
    credit = mica(discount=1.0).credit(paid([[3, -1, 6], [2, 2, 2]]))
    assert credit[0].numpy() == near(0.502, -0.387, 1.168)


def test_gtpo_gives_the_worked_returns():
    batch = paid([[0, 0, 1], [0, 0, 0]])
    assert values(batch, turn_reward(), sum_turns_to_come(0.9))[0].numpy() == near(0.81, 0.9, 1)
    assert gtpo("turn").credit(batch)[0].numpy() == near(0.707, 0.707, 0.707)
    pooled = np.array([0.81, 0.9, 1.0, 0.0, 0.0, 0.0])
    expected = (pooled - pooled.mean()) / pooled.std(ddof=1)
    assert gtpo("prompt").credit(batch).numpy() == pytest.approx(expected.reshape(2, 3), abs=1e-5)


def test_siop_gives_the_worked_numbers():
    """f = 3/4; likelihoods .2, .3, .6: .304 and .520, with .375 more on the last turn."""
    batch = turned([0.0] * 4, [2, 1, 1, 1])
    logs = {
        when: np.log([[*pair], [1, 1], [1, 1], [1, 1]])
        for when, pair in (("before", (0.2, 0.3)), ("after", (0.3, 0.6)))
    }
    batch = told(batch, support_at_before=logs["before"], support_at_after=logs["after"], cluster=[0, 0, 0, 1])
    found = values(batch, support_gain(terminal=0.0), scale_by_answer_share())
    assert found[0].numpy() == near(0.304, 0.520)
    found = values(batch, support_gain(), scale_by_answer_share())
    assert found[0].numpy() == near(0.304, 0.895)
    assert found[1:, 0].tolist() == pytest.approx([0.375, 0.375, 0.125])  # one turn: what the answer is paid alone


def test_siop_shares_are_of_scored_rollouts():
    """Two agree, a third answers otherwise and was not scored: f = 1 and not 2/3."""
    flat = [[-1.0]] * 3
    batch = told(turned([0.0, 0.0, NAN], [1] * 3), support_at_before=flat, support_at_after=flat, cluster=[0, 0, 1])
    found = values(batch, support_gain(), scale_by_answer_share())
    assert found[:2, 0].tolist() == [0.5, 0.5]


def test_istar_gives_the_worked_numbers():
    batch = turned([1.0, 0.0], [2, 2], size=2)
    batch = replace(batch, logp=torch.zeros(2, 4).double())
    batch = told(batch, logp_at_prm=[[0.1, 0.3, -0.3, 0.1], [0.0] * 4])
    steps = values(batch, implicit_reward("prm", "sampler"), sum_over_turns())
    assert steps[0].numpy() == near(0.02, 0.02, -0.01, -0.01)
    credit = istar("prm").credit(batch)
    assert credit[0].numpy() == pytest.approx(1 + np.array([0.07, 0.07, -0.05, -0.05]) / 3, abs=1e-6)
    assert istar("prm", strength=2.0, beta=0.1).credit(batch)[0, 0].item() == pytest.approx(1 + 0.28 / 3, abs=1e-6)


def test_slate_gives_the_worked_numbers():
    batch = paid([[2], [1], [0], [1.05], [-2]])
    credit = slate().credit(replace(batch, ids=torch.zeros(5, 1, dtype=torch.long)))
    assert credit[:, 0].numpy() == near(1.045, 0.388, -0.269, 0.421, -1.584)


def test_vpr_gives_the_worked_numbers():
    batch = paid([[1], [0], [1], [0]], group=[0, 0, 1, 1], state=[[0]] * 4)
    assert vpr().credit(batch)[:, 0].numpy() == near(1, -1, 1, -1)
    assert vpr("turn", outcome=0.0).credit(batch)[:, 0].numpy() == near(1, -1, 1, -1)


def test_turn_ppo_gives_the_worked_numbers():
    batch = told(paid([[0, 1]], size=2), value=[[0.5, 9.0, 0.6, 9.0]])
    assert values(batch, turn_reward(), turn_advantage(0.99, 0.95))[0].numpy() == near(0.470, 0.470, 0.400, 0.400)
    assert turn_ppo(0.99, 0.95).credit(batch)[0].numpy() == near(0.470, 0.470, 0.400, 0.400)


def test_poad_gives_the_worked_numbers():
    """V .2, .3, .5, the next action, of one token, at .6 and paid .6, so that nothing but its value comes back."""
    batch = replace(turned([0.0], [4]), turn=torch.tensor([[0, 0, 0, 1]]))
    batch = told(batch, value=[[0.2, 0.3, 0.5, 0.6]], turn_reward=[[0.0, 0.0, 0.0, 0.6]])
    assert poad().credit(batch)[0].numpy() == near(0.353, 0.266, 0.070, 0)
    assert poad(discount=0.95).credit(batch)[0].numpy() == near(0.300, 0.238, 0.070, 0)  # the authors' NTPO


def test_tree_grpo_gives_the_worked_numbers():
    batch = on_trees([1.0, 1.0, 0.0, 0.0, 0.0, 1.0], [0, 0, 0, 1, 1, 1])
    assert grpo(epsilon_std=1e-6).credit(batch)[:, 0].abs().numpy() == near(*[0.913] * 6)
    assert tree_grpo().credit(batch)[:, 0].numpy() == near(1.490, 1.490, -2.068, -1.490, -1.490, 2.068)


def test_grpo_gives_the_worked_numbers_of_search_r1():
    """One of five rollouts is right."""
    credit = grpo(epsilon_std=1e-6).credit(turned([1.0, 0.0, 0.0, 0.0, 0.0], [1] * 5))
    assert credit[:, 0].numpy() == near(1.789, *[-0.447] * 4)


def test_arpo_gives_shared_tokens_the_mean_of_the_branches():
    batch = turned([1.5, -0.5], [1, 1], size=3)
    batch = replace(batch, ids=torch.tensor([[5, 6, 7], [5, 6, 8]]))
    assert values(batch, reward(), average_over_branches()).tolist() == [[0.5, 0.5, 1.5], [0.5, 0.5, -0.5]]


def test_r3_rag_pays_the_worked_numbers():
    """Relevance .5 and 1: .8, 1.6, 2 where the answer is right, .4, .8, 0 where it is wrong."""
    batch = paid([[0.5, 1.0, NAN], [0.5, 1.0, NAN]], [1.0, 0.0])
    steps = turn_reward() | skip_last_turn() | scale_by_outcome(1.6, 0.8)
    earned = steps + 2.0 * (reward() | at_last_turn())
    assert values(batch, earned).numpy() == near([0.8, 1.6, 2.0], [0.4, 0.8, 0.0])
    batch = told(batch, value=torch.zeros(2, 3).tolist())
    alone = np.array([0.8, 1.6, 2.0, 0.4, 0.8, 0.0])
    assert r3_rag().credit(batch).flatten().numpy() == pytest.approx(
        (alone - alone.mean()) / alone.std(ddof=1), abs=1e-5
    )


def test_f_grpo_gives_the_worked_numbers():
    batch = paid([[1, 0.2], [0, 0.8]])
    assert f_grpo().credit(batch).numpy() == near([0.5, -0.3], [-0.5, 0.3])
    assert f_grpo(strength=0.5).credit(batch)[:, 1].numpy() == near(-0.15, 0.15)


# --- official code, its formula written anew


def test_matchtir_is_the_official_formula():
    """quchangle1/MatchTIR core_algos.py@f614ce1; a pool of one has mean 0 and std 1."""

    def against(pool, value):
        return value / (1 + 1e-6) if len(pool) == 1 else normalise(pool, value, True)

    for seed in range(3):
        batch, rewards, _, outcome = random_episodes(seed)
        credit = matchtir(keep_lone=True).credit(batch)
        returns = [
            [sum(0.9 ** (j - k) * row[j] for j in range(k, len(row))) for k in range(len(row))] for row in rewards
        ]
        for i, row in enumerate(returns):
            group = range(4 * (i // 4), 4 * (i // 4) + 4)
            whole = against([outcome[j] for j in group], outcome[i])
            for k, value in enumerate(row):
                own = against([returns[j][k] for j in group if k < len(returns[j])], value)
                assert float(credit[i, k]) == pytest.approx((whole + own) / 2, abs=1e-5)


def test_siop_is_the_official_formula():
    """dl-m9/SIOP core_algos.py and siop_process_reward.py@33043ff, η = 0, with a scorer for each turn."""
    rng = np.random.default_rng(3)
    lengths, cluster = [3, 1, 2, 4, 2], [0, 0, 1, -1, 0]
    supports = [rng.random(n + 1) for n in lengths]
    batch = turned([0.0] * 5, lengths)
    wide = [
        [np.log(np.pad(s[a : len(s) - 1 + a], (0, 5 - len(s)), constant_values=1)) for s in supports] for a in (0, 1)
    ]
    batch = told(batch, support_at_before=np.array(wide[0]), support_at_after=np.array(wide[1]), cluster=cluster)
    rewards = []
    for s, own in zip(supports, cluster, strict=True):
        weight = cluster.count(own) / 4 if own >= 0 else 0.0
        if len(s) == 2:
            rewards.append([0.5 * weight])
            continue
        rewards.append([weight * (math.log(s[k + 1] + 1e-8) - math.log(s[k] + 1e-8)) for k in range(len(s) - 1)])
        rewards[-1][-1] += 0.5 * weight
    pool = np.array([r for row in rewards for r in row])
    credit = siop(discount=0.9).credit(batch)
    for i, row in enumerate(rewards):
        z = [(r - pool.mean()) / (pool.std(ddof=1) + 1e-6) for r in row]
        for k in range(len(z)):
            assert float(credit[i, k]) == pytest.approx(sum(0.9 ** (j - k) * z[j] for j in range(k, len(z))), abs=1e-5)


def test_istar_is_the_official_formula_on_rollouts_of_one_turn():
    """Tongyi-ConvAI/Qwen-Character core_istar.py@1de87a2, `istar_rloo`: x·n/(n-1) less the mean, of both scores."""
    rng = np.random.default_rng(0)
    outcome, told_by = rng.random(5), rng.standard_normal((5, 3))
    batch = turned(outcome.tolist(), [1] * 5, size=3)
    batch = told(replace(batch, logp=torch.zeros(5, 3).double()), logp_at_prm=told_by)
    step = 0.05 * told_by.sum(1)
    expected = sum((x - x.mean()) * 5 / 4 for x in (outcome, step))
    assert istar("prm").credit(batch)[:, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_slate_is_the_official_formula():
    """algoprog/SLATE step_level_algos.py@09223bc, Eq. 5: candidates of one step, std with n-1, epsilon 1e-6."""
    rng = np.random.default_rng(1)
    rows = rng.random((4, 2)).tolist()
    batch = replace(paid(rows), ids=torch.tensor([[1, 0], [1, 0], [1, 0], [2, 0]]))
    credit = slate().credit(batch)
    first, second = np.array(rows).T
    assert credit[:, 0].numpy() == pytest.approx((first - first.mean()) / (first.std(ddof=1) + 1e-6), abs=1e-5)
    three = second[:3]
    assert credit[:3, 1].numpy() == pytest.approx((three - three.mean()) / (three.std(ddof=1) + 1e-6), abs=1e-5)
    assert float(credit[3, 1]) == 0.0  # it went another way, and continues a text of its own


def test_vpr_is_the_official_formula():
    """thu-nics/VPR core_gigpo.py@7fa8008, `mean_then_batch_whiten`: equal groups and groups of one are masked."""
    for seed in range(3):
        batch, rewards, states, _ = random_episodes(seed)
        rows = [(i // 4, states[i][k], i, k, rewards[i][k]) for i in range(8) for k in range(len(rewards[i]))]
        raw = {}
        for group, state, i, k, value in rows:
            pool = np.array([row[4] for row in rows if row[:2] == (group, state)])
            if len(pool) >= 2 and pool.std() > 1e-8:
                raw[i, k] = value - pool.mean()
        whole = np.array(list(raw.values()))
        credit = vpr().credit(batch)
        for _, _, i, k, _ in rows:
            expected = (raw[i, k] - whole.mean()) / (whole.std() + 1e-8) if (i, k) in raw else 0.0
            assert float(credit[i, k]) == pytest.approx(expected, abs=1e-5)


def test_tree_grpo_is_the_official_formula():
    """AMAP-ML/Tree-GRPO ray_trainer_ts.py@90b1709, 'tree': the sum of both; a tree of one has mean 0 and std 1."""
    rng = np.random.default_rng(2)
    scores, trees = rng.integers(1, 4, 8).astype(float), [0, 0, 0, 1, 0, 0, 1, 1]
    batch = on_trees(scores.tolist(), trees, group=[0] * 4 + [1] * 4)
    credit = tree_grpo(keep_lone=True).credit(batch)[:, 0]
    for i, score in enumerate(scores):
        group = [j for j in range(8) if j // 4 == i // 4]
        tree = [scores[j] for j in group if trees[j] == trees[i]]
        inner = score / (1 + 1e-6) if len(tree) == 1 else normalise(tree, score, True)
        assert float(credit[i]) == pytest.approx(normalise([scores[j] for j in group], score, True) + inner, abs=1e-5)


def test_bi_level_gae_is_the_official_recursion():
    """RAGEN-AI/RAGEN core_algos.py@0302838: a turn ends where the reward is not 0, values at that token."""
    rng = np.random.default_rng(4)
    reward_of, value = rng.random(3) + 0.1, rng.standard_normal(6)
    batch = told(paid([reward_of.tolist()], size=2), value=[value.tolist()])
    high, gamma, lam = 0.9, 0.8, 0.7
    token, carried, following = np.zeros(6), 0.0, 0.0
    for k in (2, 1, 0):
        end = 2 * k + 1
        carried = reward_of[k] + high * following - value[end] + high * lam * carried
        following, token[end] = value[end], carried + value[end]
    advantage = np.zeros(6)
    for t in range(5, -1, -1):
        ends = t % 2 == 1
        ahead, trace = (0.0, 0.0) if ends else (value[t + 1], advantage[t + 1])
        advantage[t] = (token[t] if ends else 0.0) + gamma * ahead - value[t] + gamma * lam * trace
    white = (advantage - advantage.mean()) / np.sqrt(advantage.var(ddof=1) + 1e-8)
    assert bi_level_gae(high, gamma, lam).credit(batch)[0].numpy() == pytest.approx(white, abs=1e-5)


@pytest.mark.parametrize("inside", [1.0, 0.95])
def test_poad_is_the_official_recursion(inside):
    """morning9393/ADRL language_buffer.py@1a56809: γ at the last token of an action; inside it 1 (POAD) or γ (NTPO)."""
    rng = np.random.default_rng(5)
    rewards, value, gamma, lam = rng.random(3), rng.standard_normal(9), 0.95, 0.9
    batch = told(paid([rewards.tolist()], size=3), value=[value.tolist()])
    found, carried = np.zeros(9), 0.0
    for t in range(8, -1, -1):
        last = t % 3 == 2
        ahead = value[t + 1] if t < 8 else 0.0
        rate = gamma if last else inside
        carried = (rewards[t // 3] if last else 0.0) + rate * ahead - value[t] + rate * lam * carried
        found[t] = carried
    assert poad(gamma, inside, lam).credit(batch)[0].numpy() == pytest.approx(found, abs=1e-5)


# --- policies: one for each case


def test_a_lone_turn_gets_nothing_or_its_own_number():
    batch = paid([[1, 2], [3]])
    lone = Coefficient(turn_reward()(batch).value)
    for keep_lone, expected in ((False, 0.0), (True, 2.0)):
        stage = center_by_pool("turn", keep_lone) | scale_by_pool_std("turn", 0.5, keep_lone=keep_lone)
        assert float(stage(lone, batch).spread(batch)[0, 1]) == expected
    assert values(batch, turn_reward(), subtract_pool_mean_of_others("turn")).tolist() == [[-2, 2], [2, 0]]


def test_siblings_are_turns_behind_one_text():
    """Equal tokens, then a fork; what a tool wrote tells rollouts apart, and other prompts are never siblings."""
    batch = paid([[1, 2], [3, 4], [5, 6], [7, 8]], group=[0, 0, 0, 1], size=2)
    ids = torch.tensor([[1, 1, 2, 2], [1, 1, 3, 3], [1, 9, 2, 2], [1, 1, 2, 2]])
    batch = replace(batch, ids=ids)
    centred = values(batch, turn_reward(), center_by_pool("sibling"))
    assert centred[:, ::2].tolist() == [[-2, -1], [0, 1], [2, 0], [0, 0]]
    seen = torch.zeros_like(batch.mask)
    seen[:, 1] = True
    batch = replace(batch, observation=seen, sampled=batch.mask & ~seen, rationale=batch.mask & ~seen)
    assert values(batch, turn_reward(), center_by_pool("sibling"))[:, ::2].tolist() == centred[:, ::2].tolist()


def test_branches_share_through_what_a_tool_wrote():
    batch = turned([2.0, 0.0, 1.0], [1] * 3, size=4)
    seen = torch.zeros_like(batch.mask)
    seen[:, 1] = True
    ids = torch.tensor([[1, 5, 2, 3], [1, 5, 2, 4], [1, 6, 2, 3]])
    batch = replace(batch, ids=ids, observation=seen, sampled=batch.mask & ~seen, rationale=batch.mask & ~seen)
    shared = values(batch, reward(), average_over_branches())
    assert shared[:, [0, 2, 3]].tolist() == [[1, 1, 2], [1, 1, 0], [1, 1, 1]]
    assert not arpo().credit(batch)[seen].any()


def test_an_unscored_branch_is_in_no_mean():
    batch = replace(turned([2.0, 0.0, NAN], [1] * 3, size=2), ids=torch.tensor([[1, 2], [1, 3], [1, 4]]))
    assert values(batch, reward(), average_over_branches()).tolist() == [[1, 2], [1, 0], [0, 0]]


def test_rollouts_that_share_nothing_have_grpos_advantage():
    batch = replace(turned([1.0, 0.0], [1, 1]), ids=torch.tensor([[1], [2]]))
    assert same(arpo().credit(batch), grpo(epsilon_std=1e-6).credit(batch))


def test_a_rollout_without_a_tree_is_a_tree_alone():
    batch = on_trees([1.0, 0.0, 1.0, 0.0], [-1, -1, 0, 0])
    inner = tree_grpo().credit(batch) - grpo(epsilon_std=1e-6).credit(batch)
    assert inner[:2, 0].abs().max() < 1e-6
    assert inner[2:, 0].numpy() == near(0.707, -0.707)
    other = on_trees([1.0, 0.0, 1.0, 0.0], [0, 0, 0, 0], group=[0, 0, 1, 1])
    assert tree_grpo().credit(other)[:, 0].numpy() == near(1.414, -1.414, 1.414, -1.414)


def test_equal_pools_leave_the_statistics_of_the_step():
    """Their zeros would halve the spread, and double what the others get."""
    batch = paid([[1, 5], [0, 5]], state=[[0, 1], [0, 1]])
    assert vpr().credit(batch).numpy() == near([1, 0], [-1, 0])
    kept = skip_equal_pools("state")(turn_reward()(batch), batch).keep
    assert kept.tolist() == [[True, False], [True, False]]


def test_an_unknown_support_gains_nothing_and_zero_is_finite():
    batch = turned([0.0, 0.0], [2, 2])
    minus = -math.inf
    batch = told(
        batch,
        support_at_before=[[minus, NAN], [minus, -1.0]],
        support_at_after=[[-1.0, -1.0], [minus, minus]],
        cluster=[0, -1],
    )
    gains = values(batch, support_gain(0.0))
    assert gains[0].tolist() == pytest.approx([-1.0 - math.log(1e-8), 0.0], abs=1e-6)
    assert gains[1].tolist() == pytest.approx([0.0, math.log(1e-8) + 1.0], abs=1e-6)
    assert not values(batch, support_gain(), scale_by_answer_share())[1].any()
    with pytest.raises(QreditError, match="support@after must be log-likelihoods"):
        support_gain()(told(batch, support_at_after=[[0.5, NAN], [0.0, 0.0]]))


def test_an_implicit_reward_is_of_its_base_or_the_sampler():
    batch = replace(turned([1.0], [1]), logp=torch.tensor([[-3.0]]).double())
    batch = told(batch, logp_at_prm=[[-1.0]], logp_at_reference=[[-2.0]])
    assert float(values(batch, implicit_reward("prm", strength=0.5))[0, 0]) == pytest.approx(0.5)
    assert float(values(batch, implicit_reward("prm", "sampler", 1.0))[0, 0]) == pytest.approx(2.0)
    moved = replace(batch, sampler_logp=torch.tensor([[-5.0]]).double())
    assert float(values(moved, implicit_reward("prm", "sampler", 1.0))[0, 0]) == pytest.approx(4.0)


def test_a_critic_skips_what_a_tool_wrote():
    """Its estimates on an observation are not read: after a turn's last token comes the next turn's first."""
    batch = paid([[0, 1]], size=2)
    seen = torch.zeros(1, 5, dtype=torch.bool)
    seen[0, 2] = True
    widened = replace(
        batch,
        mask=torch.ones(1, 5, dtype=torch.bool),
        observation=seen,
        sampled=~seen,
        rationale=~seen,
        answer=torch.zeros(1, 5, dtype=torch.bool),
        turn=torch.tensor([[0, 0, 0, 1, 1]]),
        extra={},
    )
    widened = told(widened, turn_reward=[[0, 0, 0, 1, 1]], value=[[0.1, 0.2, 77.0, 0.3, 0.4]])
    plain = told(batch, value=[[0.1, 0.2, 0.3, 0.4]])
    for objective in (turn_ppo(), poad(), bi_level_gae(0.9)):
        assert same(objective.credit(widened)[~seen], objective.credit(plain).flatten())
        assert not objective.credit(widened)[seen].any()


def test_discounts_of_a_critic_keep_double_precision():
    batch = told(paid([[0, 1]], size=2), value=[[0.1, 0.2, 0.3, 0.4]])
    for stage in (turn_advantage(0.9, 0.7), turn_return(0.9, 0.7), token_advantage(0.9, 0.7, 0.7)):
        found = stage(turn_reward()(batch), batch).value[0, 0].item()
        last, turn_last = 1 - 0.4, 0.9 * (1 - 0.4)
        expected = {
            "turn_advantage": 0.9 * 0.3 - 0.1 + 0.9 * 0.7 * (1 - 0.3),
            "turn_return": 0.9 * 0.4 + 0.7 * turn_last,
            "token_advantage": 0.9 * 0.2 - 0.1 + 0.63 * (0.7 * 0.3 - 0.2 + 0.49 * (0.9 * 0.4 - 0.3 + 0.63 * last)),
        }[type(stage).__name__]
        assert found == pytest.approx(expected, rel=1e-12)


def test_turns_without_a_reward_still_have_a_critic():
    batch = told(paid([[NAN, 1], [NAN, NAN]]), value=[[0.5, 0.25], [0.5, 0.25]])
    credit = turn_ppo(1.0, 0.0).credit(batch)
    assert credit.numpy() == near([-0.25, 0.75], [0, 0])  # of the second rollout nobody said anything
    unscored = told(paid([[0, 1]], [NAN]), value=[[0.5, 0.25]])
    for objective in (turn_ppo(), poad(), bi_level_gae(0.9), r3_rag()):
        assert not objective.credit(unscored).any()


@pytest.mark.parametrize("make", [turn_advantage, turn_return, token_advantage])
def test_rates_outside_zero_and_one_are_refused(make):
    more = (0.5,) if make is token_advantage else ()
    for rates in ((1.5, 0.5), (0.5, -0.1)):
        with pytest.raises(QreditError, match="must be a number between 0 and 1"):
            make(*rates, *more)
