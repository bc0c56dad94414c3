"""Steps, macro actions and budgets: worked numbers, traps, and what degenerate groups get."""

from dataclasses import replace

import pytest
import torch

from qredit.core.chain import Coefficient, on_span
from qredit.core.objective import Objective
from qredit.credit.budget import budget_advantage
from qredit.credit.macro import (
    fixed_macros,
    generalized_advantage,
    macro_advantage,
    macro_advantage_by_last,
    macro_advantage_by_position,
    random_macros,
)
from qredit.credit.per_token import (
    at_last_token,
    standardize_tokens_by_group,
    subtract_token_mean_of_others,
    sum_to_come,
)
from qredit.credit.reward import reward
from qredit.credit.step import (
    skip_step_ends,
    step_scores,
    subtract_step_share_of_others,
    weight_worst_steps,
    worst_to_come,
)
from qredit.credit.turn_entropy import scale_by_turn_entropy
from qredit.credit.wrong_step import charge_wrong_steps
from qredit.objectives import aem, brpo, capo, grpo, ma_rlhf, pure, pure_strict, tp_grpo
from qredit.utils.errors import QreditError
from tests.support.batches import reward_batch
from tests.support.rounding import same

NAN = float("nan")
SCORES = (0.9, 0.8, -0.6, 0.7)


def stepped(scores, rewards=None, size=2):
    """Rows of steps of `size` tokens with these scores, the score on the last token of a step; rewards 0 by default."""
    steps = torch.arange(len(scores[0])).repeat_interleave(size).expand(len(scores), -1)
    spread = torch.zeros(steps.shape, dtype=torch.float64)
    spread[:, size - 1 :: size] = torch.tensor(scores, dtype=torch.float64)
    rewards = [0.0] * len(scores) if rewards is None else rewards
    return reward_batch(rewards, lengths=[steps.shape[1]] * len(scores), extra={"step": steps, "step_score": spread})


def at_step_ends(value, size=2):
    return value[:, size - 1 :: size]


# --- PURE


def test_soft_minimum_of_the_sheet_is_close_to_the_worst_score():
    batch = stepped([SCORES])
    weighted = (step_scores() | weight_worst_steps(0.1))(batch).value
    assert float(weighted.sum()) == pytest.approx(-0.599995, abs=5e-7)
    returns = (step_scores() | weight_worst_steps(0.1) | sum_to_come())(batch).value
    assert at_step_ends(returns)[0].tolist() == pytest.approx([-0.6, -0.6, -0.6, 0.0], abs=2e-5)


def test_the_softmin_tends_to_the_minimum_and_to_the_mean():
    batch = stepped([SCORES])
    cold, hot = ((step_scores() | weight_worst_steps(tau))(batch).value.sum() for tau in (1e-3, 1e6))
    assert float(cold) == pytest.approx(-0.6)
    assert float(hot) == pytest.approx(sum(SCORES) / 4, abs=1e-5)


def test_the_strict_return_is_positive_where_all_is_good():
    batch = stepped([(0.9, 0.8, 0.7), (0.9, -0.6, 0.7)])
    value = (step_scores() | worst_to_come())(batch).value
    assert value[0].tolist() == pytest.approx([0.7] * 6)  # a minimum over every token would give 0
    assert value[1].tolist() == pytest.approx([-0.6, -0.6, -0.6, -0.6, 0.7, 0.7])


def test_score_that_is_not_on_last_token_of_step_is_never_read():
    batch = stepped([SCORES, SCORES[::-1]], rewards=[1.0, 0.0])
    noisy = batch.extra["step_score"].clone()
    noisy[:, ::2] = torch.randn(2, 4).double() * 100
    changed = replace(batch, extra={**batch.extra, "step_score": noisy})
    assert torch.equal(step_scores()(changed).value, step_scores()(batch).value)
    for objective in (pure(), pure_strict()):
        assert torch.equal(objective.credit(changed), objective.credit(batch))


def test_a_baseline_per_token_does_not_pay_for_fewer_steps():
    """Two rollouts of eight tokens and one worst score; one cut into two steps, the other into four."""
    batch = stepped([(0.0, 0.5, 0.5, 0.5), (0.0, 0.5, 0.5, 0.5)])
    merged = batch.extra["step"].clone()
    merged[0] = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    batch = replace(batch, extra={**batch.extra, "step": merged})
    soft = step_scores() | weight_worst_steps(0.1)
    charged = (soft | subtract_step_share_of_others())(batch).value - soft(batch).value
    earned = soft(batch).value.sum(1)
    assert charged.sum(1).tolist() == pytest.approx([-float(earned[1]), -float(earned[0])])


def test_last_tokens_of_steps_learn_nothing_but_are_counted():
    batch = stepped([SCORES, SCORES[::-1]], rewards=[1.0, 0.0])
    for objective in (pure(), pure_strict()):
        credit = objective.credit(batch)
        assert not at_step_ends(credit).any()
        assert credit[:, ::2].all()
        assert objective.evaluate(batch).weight is None


def test_outcome_reward_at_last_token_is_same_on_every_token():
    """The released code adds it at the end and sums backwards; here it stands on every token."""
    batch = stepped([SCORES, SCORES[::-1]], rewards=[1.0, 0.0])
    process = step_scores() | weight_worst_steps(0.1) | subtract_step_share_of_others()
    total = process(batch).value + centred_at_the_end(batch)
    backwards = total.flip(1).cumsum(1).flip(1)
    backwards[:, 1::2] = 0
    assert torch.allclose(pure().credit(batch).double(), backwards, atol=1e-6)


def centred_at_the_end(batch):
    """r_i - mean of the others on the last token."""
    ended = torch.zeros(batch.mask.shape, dtype=torch.float64)
    total, count = batch.reward.sum(), len(batch.reward)
    ended[:, -1] = batch.reward - (total - batch.reward) / (count - 1)
    return ended


def test_rows_without_a_step_get_the_outcome_alone():
    batch = stepped([SCORES, SCORES], rewards=[1.0, 0.0])
    none = replace(batch, extra={**batch.extra, "step": torch.full_like(batch.extra["step"], -1)})
    for objective in (pure(), pure_strict()):
        assert objective.credit(none).tolist() == [[1.0] * 8, [-1.0] * 8]


def test_one_long_step_and_a_lone_rollout_are_fine():
    batch = stepped([(0.4,)], size=4)
    assert pure().credit(batch)[0].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.0])
    assert pure_strict().credit(batch)[0].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.0])
    assert not skip_step_ends()(step_scores()(batch), batch).value.any()


def test_an_impossible_temperature_is_refused():
    with pytest.raises(QreditError, match="temperature"):
        pure(temperature=0.0)


# --- CAPO


def marked(rewards, wrong, group=None):
    wrong = torch.tensor(wrong, dtype=torch.bool)
    return reward_batch(rewards, group, lengths=[wrong.shape[1]] * len(rewards), extra={"wrong_step": wrong})


def test_the_four_rewards_of_the_sheet():
    batch = marked([1.0, 0.0], [[False, True], [False, True]])
    value = (2.0 * reward() | charge_wrong_steps(1.0))(batch).value
    assert value.tolist() == [[2.0, 1.0], [0.0, -1.0]]


def test_statistics_are_pooled_over_all_tokens_of_the_group():
    batch = marked([1.0, 0.0, 1.0], [[False, True], [False, True], [False, False]], group=[0, 0, 1])
    pool = torch.tensor([2.0, 1.0, 0.0, -1.0])
    expected = (pool - pool.mean()) / pool.std()
    assert capo().credit(batch).flatten().tolist() == pytest.approx([*expected.tolist(), 0.0, 0.0])


def test_an_all_wrong_group_still_learns_from_its_wrong_steps():
    credit = capo().credit(marked([0.0, 0.0], [[False, True], [False, False]]))
    assert float(credit[0, 1]) < 0 < float(credit[0, 0])
    assert not capo().credit(marked([0.0, 0.0], [[False, False], [False, False]])).any()


def test_equal_tokens_leave_no_rounding_residue():
    batch = marked([0.1, 0.1, 0.1], [[True] * 3] * 3)
    assert not standardize_tokens_by_group()((0.3 * reward())(batch), batch).value.any()


# --- TP-GRPO


def thought(rewards, unused):
    unused = torch.tensor(unused, dtype=torch.bool)
    return reward_batch(rewards, lengths=[unused.shape[1]] * len(rewards), extra={"unused_step": unused})


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_right_rollouts_pay_for_unused_steps_and_wrong_do_not(low):
    batch = thought([1.0, low, low, low], [[False, True]] * 4)
    plain, credit = grpo().credit(batch), tp_grpo(alpha=0.4).credit(batch)
    assert same(credit[:, 0], plain[:, 0])
    assert float(credit[0, 1]) == pytest.approx(float(plain[0, 1]) - 0.4 * 0.25)
    assert credit[1:, 1].tolist() == [0.0, 0.0, 0.0]


def test_groups_that_are_all_right_or_all_wrong():
    unused = [[False, True], [False, False]]
    assert tp_grpo(alpha=0.4).credit(thought([1.0, 1.0], unused)).flatten().tolist() == pytest.approx([0, -0.4, 0, 0])
    assert not tp_grpo(alpha=0.4).credit(thought([0.0, 0.0], unused)).any()


# --- MA-RLHF


def test_the_macro_advantages_of_the_sheet():
    reward, value = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.4]])
    exists = torch.ones(1, 2, dtype=torch.bool)
    assert generalized_advantage(reward, value, exists, 1.0, 0.95)[0].tolist() == pytest.approx([0.47, 0.60])


def critic_batch(rewards, macro, value, **fields):
    macro = torch.tensor(macro)
    value = torch.tensor(value, dtype=torch.float64)
    return reward_batch(
        rewards, lengths=[macro.shape[1]] * len(rewards), extra={"macro": macro, "value": value}, **fields
    )


def test_tokens_share_the_advantage_of_their_macro():
    batch = critic_batch([1.0], [[0, 0, 1]], [[0.4, 0.6, 0.4]])
    assert ma_rlhf().credit(batch)[0].tolist() == pytest.approx([0.47, 0.47, 0.60])


def test_a_last_macro_of_several_tokens_would_average_reward():
    value = [[0.5, 0.5, 0.5, 0.5]]
    alone = critic_batch([1.0], fixed_macros(torch.ones(1, 4, dtype=torch.bool), 2).tolist(), value)
    together = critic_batch([1.0], [[0, 0, 1, 1]], value)
    assert float(ma_rlhf().credit(alone)[0, -1]) == pytest.approx(0.5)
    assert float(ma_rlhf().credit(together)[0, -1]) == pytest.approx(0.0)


def test_the_three_ways_to_weigh_the_tokens_of_a_macro():
    batch = critic_batch([0.0], [[0, 0, 0]], [[0.1, 0.2, 0.6]])
    for stage, pooled in (
        (macro_advantage(), 0.3),
        (macro_advantage_by_last(), 0.6),
        (macro_advantage_by_position(), (0.1 + 0.2 / 2 + 0.6 / 3) / (1 + 1 / 2 + 1 / 3)),
    ):
        credit = Objective(on_span("sampled", reward() | at_last_token() | stage)).credit(batch)
        assert credit[0].tolist() == pytest.approx([-pooled] * 3)


def test_tokens_of_no_macro_and_of_tools_get_nothing():
    batch = critic_batch([1.0], [[0, -1, 1, 1, 2]], [[0.5] * 5])
    tool = torch.tensor([[True, True, True, False, True]])
    credit = ma_rlhf().credit(replace(batch, sampled=tool))
    assert (credit != 0)[0].tolist() == [True, False, True, False, True]


def test_fixed_macros_end_in_a_macro_of_one_token():
    sampled = torch.tensor([[1, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0]]).bool()
    numbers = fixed_macros(sampled, 2)
    assert len(set(numbers[0, :6].tolist())) == 4  # 2 + 2 + 1 + the last
    assert numbers[0, 4] != numbers[0, 5]
    assert numbers[1, 0] == -1
    assert (numbers[2, 1:] == -1).all()
    for row in range(3):
        own = numbers[row][sampled[row]]
        assert torch.equal(own, own.sort().values)
        assert int((own == own[-1]).sum()) == 1
    with pytest.raises(QreditError, match="length"):
        fixed_macros(sampled, 0)


def test_random_macros_are_a_function_of_seed_and_lengths():
    sampled = torch.ones(3, 60, dtype=torch.bool)
    first = random_macros(sampled, seed=1, repeats=2)
    assert torch.equal(first, random_macros(sampled, seed=1, repeats=2))
    assert not torch.equal(first, random_macros(sampled, seed=2, repeats=2))
    for row in first:
        sizes = row.unique_consecutive(return_counts=True)[1].tolist()
        assert sizes[-1] == 1
        assert sorted(sizes[:10]) == [1, 1, 2, 2, 3, 3, 5, 5, 10, 10]  # 42 tokens; the other 17 are one macro
        assert sizes[10] == 17
    with pytest.raises(QreditError, match="at least 1"):
        random_macros(sampled, seed=1, repeats=0)


# --- BRPO


def cut(earned, group=None):
    """Rollouts of four tokens, token s before cut s."""
    rows = len(earned)
    fields = {f"budget_reward@{j}": torch.tensor([row[j] for row in earned], dtype=torch.float64) for j in range(4)}
    budget = torch.arange(4).expand(rows, 4).clone()
    return reward_batch([0.0] * rows, group, lengths=[4] * rows, extra={**fields, "budget": budget})


def test_the_budget_advantages_of_the_sheet():
    credit = brpo((0.25,) * 4, 8).credit(cut([[0, 0.25, 0.5, 1], [0, 0, 0.25, 0.25]]))
    assert [round(x, 3) for x in credit[0].tolist()] == [0.156, 0.227, 0.208, 0.144]
    assert [round(x, 3) + 0.0 for x in credit[1].tolist()] == [-0.156, -0.086, 0.0, -0.003]


def test_a_rollout_alone_has_no_group_baseline():
    credit = brpo((0.25,) * 4, 8).credit(cut([[0, 0.25, 0.5, 1], [1, 1, 1, 1]], group=[0, 1]))
    assert float(credit[0, 0]) == pytest.approx(0.4375)
    assert float(credit[1, 1]) == pytest.approx(0.75 - 0.25 * 0.75)


def test_an_unscored_budget_leaves_the_row_out():
    credit = brpo((0.25,) * 4, 8).credit(cut([[0, NAN, 0.5, 1], [0, 0, 0, 1], [0, 0, 1, 1]]))
    pair = brpo((0.25,) * 4, 8).credit(cut([[0, 0, 0, 1], [0, 0, 1, 1]]))
    assert not credit[0].any()
    assert same(credit[1:], pair)


def test_prior_that_is_none_and_a_budget_beyond_it_are_refused():
    for prior in ((), (0.5, 0.6), (1.5, -0.5)):
        with pytest.raises(QreditError, match="prior"):
            budget_advantage(prior)
    batch = cut([[0, 0, 0, 1]])
    with pytest.raises(QreditError, match="holds 3"):
        brpo((0.5, 0.5), 8).credit(batch)


# --- statistics per token


def test_token_mean_of_the_others_weighs_rows_by_their_length():
    batch = reward_batch([1.0, 3.0, 5.0], lengths=[1, 3, 2])
    credit = Objective(on_span("sampled", reward() | subtract_token_mean_of_others())).credit(batch)
    assert credit[0, 0] == pytest.approx(1 - (3 * 3 + 5 * 2) / 5)
    assert credit[1].tolist() == pytest.approx([3 - (1 + 5 * 2) / 3] * 3)


def test_a_reward_arrives_at_the_last_sampled_token():
    batch = reward_batch([2.0, 3.0], lengths=[3, 2])
    batch = replace(batch, sampled=torch.tensor([[True, True, False], [True, True, False]]))
    assert at_last_token()(reward()(batch), batch).value.tolist() == [[0, 2, 0], [0, 3, 0]]


# --- AEM


def by_turn(*rows, turn=None, reward=None):
    """Rows of tokens with these entropies; each token is a turn unless `turn` says otherwise."""
    entropy = torch.tensor(rows, dtype=torch.float64)
    turn = torch.arange(entropy.shape[1]).expand(entropy.shape) if turn is None else torch.tensor(turn)
    reward = [0.0] * len(rows) if reward is None else reward
    fields = {"turn": turn, "extra": {"sampler_entropy": entropy}}
    return reward_batch(reward, lengths=[entropy.shape[1]] * len(rows), **fields)


def factors(batch, **settings):
    ones = torch.ones(len(batch.group), 1, dtype=torch.float64)
    return scale_by_turn_entropy(**settings)(Coefficient(ones), batch).value.flatten().tolist()


def test_factors_of_turns_are_the_worked_ones_in_any_rollouts():
    worked = pytest.approx([1.453, 0.881, 0.534, 1.131], abs=6e-4)
    assert factors(by_turn([0.2, 0.6, 1.0, 0.4])) == worked
    assert factors(by_turn([0.2, 0.6], [1.0, 0.4])) == worked
    assert factors(by_turn([0.2], [0.6], [1.0], [0.4])) == worked


def test_a_turn_is_the_mean_of_its_tokens_and_counts_once():
    batch = by_turn([0.1, 0.3, 0.6], [1.0, 1.0, 0.4], turn=[[0, 0, 3], [1, 1, 2]])
    assert factors(batch) == pytest.approx([1.453, 1.453, 0.881, 0.534, 0.534, 1.131], abs=6e-4)


def test_a_narrow_range_and_a_turn_alone_leave_the_credit():
    assert factors(by_turn([0.5, 0.59])) == [1.0, 1.0]
    assert factors(by_turn([0.5, 0.61])) != [1.0, 1.0]
    assert factors(by_turn([0.5, 0.5]), least_range=0.0) == [1.0, 1.0]
    assert factors(by_turn([0.5])) == [1.0]


def test_the_range_is_that_of_the_group_and_of_scored_rollouts():
    batch = by_turn([0.2], [0.6], [1.0], [0.4], [9.0], [0.0], reward=[1.0, 0.0, 1.0, 0.0, NAN, 1.0])
    found = aem().credit(replace(batch, group=torch.tensor([0, 0, 0, 0, 0, 1])))[:, 0]
    std = (1 / 3) ** 0.5
    expected = [1.453 * 0.5 / std, -0.881 * 0.5 / std, 0.534 * 0.5 / std, -1.131 * 0.5 / std, 0.0, 0.0]
    assert found.tolist() == pytest.approx(expected, abs=1e-3)
    assert abs(float(found.sum())) > 0.02  # the centring of GRPO is lost
