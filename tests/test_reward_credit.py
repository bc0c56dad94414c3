"""Rewards made of length, difficulty, entropy and the answer's probability: worked numbers, traps, edges."""

import math
from dataclasses import replace

import pytest
import torch
from batches import likelihood_batch, reward_batch
from rounding import same
from trl.rewards import get_cosine_scaled_reward, get_soft_overlong_punishment

from qredit.credit.answer_probability import mean_answer_probability
from qredit.credit.difficulty import EASY, HARD, NO_TAG, add_difficulty_rewards, success_as_sign
from qredit.credit.length import grade_by_length, subtract_length, subtract_overlong
from qredit.credit.phase_entropy import reward_by_phase_entropy
from qredit.credit.reward import reward
from qredit.errors import QreditError
from qredit.objectives import adactrl, dapo, dapo_overlong, pear, rlpr, verifree

NAN = float("nan")


def shaped(stage, batch):
    """The reward of each rollout after a stage."""
    return (reward() | stage)(batch).value[:, 0].tolist()


# --- length


def test_the_overlong_punishment_is_that_of_trl():
    lengths = [1, 80, 81, 90, 100, 101, 140]
    batch = reward_batch([0.0] * 7, lengths=lengths)
    theirs = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    expected = theirs(completion_ids=[[1] * length for length in lengths])
    assert shaped(subtract_overlong(length=100, buffer=20), batch) == pytest.approx(expected)
    assert expected[3] == -0.5


def test_only_sampled_tokens_make_a_rollout_long():
    batch = reward_batch([1.0], lengths=[10])
    forced = torch.arange(10) < 4
    assert shaped(subtract_overlong(length=8, buffer=4), replace(batch, sampled=forced[None])) == [1.0]
    assert shaped(subtract_overlong(length=8, buffer=4), batch) == [0.0]


def test_short_rollouts_get_dapo_and_long_ones_less():
    batch = reward_batch([1.0, 0.0, 1.0], lengths=[3, 4, 4])
    assert torch.equal(dapo_overlong(length=8, buffer=4).credit(batch), dapo().credit(batch))
    credit = dapo_overlong(length=4, buffer=1).credit(batch)
    assert float(credit[0, 0]) > float(credit[2, 0]) > float(credit[1, 0])


def test_a_buffer_longer_than_the_length_is_refused():
    for buffer in (0, 9):
        with pytest.raises(QreditError, match="buffer"):
            subtract_overlong(length=8, buffer=buffer)


def test_the_cosine_grades_are_those_of_trl(monkeypatch):
    lengths = [1, 25, 50, 75, 100, 150]
    theirs = get_cosine_scaled_reward(max_len=100)
    for right in (1.0, 0.0):
        call = lambda completions, solution, right=right: [right] * len(completions)  # noqa: E731
        monkeypatch.setattr("trl.rewards.accuracy_rewards.accuracy_reward", call)
        expected = theirs(lengths, [""] * 6, [[1] * length for length in lengths])
        batch = reward_batch([right] * 6, lengths=lengths)
        assert shaped(grade_by_length(length=100), batch) == pytest.approx(expected)
        assert expected[2] == pytest.approx(0.75 if right else -0.75)


def test_a_grade_never_rises_again_beyond_the_length():
    batch = reward_batch([1.0, 1.0], lengths=[10, 20])
    assert shaped(grade_by_length(length=10), batch) == pytest.approx([0.5, 0.5])


def test_a_price_per_token():
    assert shaped(subtract_length(0.5, length=10), reward_batch([1.0, 0.0], lengths=[4, 10])) == pytest.approx(
        [0.8, -0.5]
    )


# --- AdaCtrl


def tagged(rewards, tags, lengths, group=None):
    return reward_batch(rewards, group, lengths=lengths, extra={"difficulty_tag": torch.tensor(tags)})


def test_the_length_rewards_of_the_sheet_at_a_quarter_of_the_longest():
    stage = add_difficulty_rewards(length_weight=1.0, tag_weight=0.0)
    easy = tagged([1.0, 1.0], [EASY, EASY], [2, 8])
    hard = tagged([0.0, 0.0], [HARD, HARD], [2, 8])
    assert [round(x, 3) for x in shaped(stage, easy)] == [1.854, 1.0]
    assert [round(x, 3) for x in shaped(stage, hard)] == [0.146, 1.0]


def test_the_tag_is_paid_against_the_groups_label():
    stage = add_difficulty_rewards(length_weight=0.0, tag_weight=1.0)
    assert shaped(stage, tagged([1.0, 1.0, 1.0], [EASY, HARD, NO_TAG], [3] * 3)) == [2.0, 1.0, 0.0]


@pytest.mark.parametrize(("right", "label"), [(5, HARD), (6, EASY)])
def test_a_group_is_easy_only_above_the_threshold(right, label):
    rewards = [1.0] * right + [0.0] * (8 - right)
    stage = add_difficulty_rewards(length_weight=0.0, tag_weight=1.0)
    added = [
        made - own for made, own in zip(shaped(stage, tagged(rewards, [label] * 8, [3] * 8)), rewards, strict=True)
    ]
    assert added == [1.0] * 8  # 5 of 8 is .625, not above it


def test_length_is_paid_whether_or_not_the_answer_is_right():
    batch = tagged([1.0, 1.0, 1.0, 0.0], [EASY] * 4, [4, 4, 8, 4])
    made = shaped(add_difficulty_rewards(), batch)
    assert made[0] - made[3] == pytest.approx(1.0)


def test_rewards_of_zero_and_one_and_of_plus_and_minus_one_are_the_same():
    ones = tagged([1.0, 0.0, 1.0], [EASY, HARD, NO_TAG], [2, 5, 3])
    signs = replace(ones, reward=2 * ones.reward - 1)
    assert torch.equal(adactrl().credit(ones), adactrl().credit(signs))
    assert shaped(success_as_sign(), ones) == [1.0, -1.0, 1.0]


def test_an_unscored_row_changes_neither_label_nor_longest():
    batch = tagged([1.0, 1.0, NAN], [EASY, EASY, EASY], [2, 4, 40])
    pair = tagged([1.0, 1.0], [EASY, EASY], [2, 4])
    credit = adactrl().credit(batch)
    assert not credit[2].any()
    assert same(credit[:2, :4], adactrl().credit(pair))


# --- PEAR


def entropic(thinking, answering, rewards, closing=9.0):
    """Rows of two tokens of thinking, one sampled closing token and two of answer, with these entropies."""
    column = torch.arange(5).expand(len(rewards), -1)
    entropy = torch.zeros(len(rewards), 5, dtype=torch.float64)
    entropy[:, :2] = torch.tensor(thinking, dtype=torch.float64)[:, None]
    entropy[:, 2] = closing
    entropy[:, 3:] = torch.tensor(answering, dtype=torch.float64)[:, None]
    batch = reward_batch(rewards, lengths=[5] * len(rewards), entropy=entropy)
    return replace(batch, rationale=column < 3, close=column == 2, response=column > 2)


def test_the_phase_rewards_of_the_sheet():
    batch = entropic([0.6, 0.1], [0.2, 0.2], [1.0, 1.0])
    assert shaped(reward_by_phase_entropy(1.0, 0.0), batch) == pytest.approx([0.6, 1.0])


def test_any_other_answer_gets_its_own_reward_whatever_its_entropies():
    assert shaped(reward_by_phase_entropy(0.9, 0.3), entropic([0.5, 5.0], [0.0, 0.0], [0.0, 0.0])) == [0.3, 0.3]


def test_a_right_answer_can_fall_below_a_wrong_one():
    made = shaped(reward_by_phase_entropy(0.9, 0.3), entropic([2.0, 0.0], [0.0, 0.0], [1.0, 0.0]))
    assert made == pytest.approx([-1.1, 0.3])


def test_without_a_sampled_answer_its_entropy_is_nothing():
    batch = entropic([0.6], [0.2], [1.0])
    batch = replace(batch, response=torch.zeros_like(batch.mask))
    assert shaped(reward_by_phase_entropy(1.0, 0.0), batch) == pytest.approx([0.4])
    assert shaped(reward_by_phase_entropy(1.0, 0.0), replace(batch, close=None, response=None))[0] < 0.4


def test_nothing_is_learnt_where_no_answer_is_right():
    assert not pear(right=0.9, wrong=0.3).credit(entropic([0.5, 0.1], [0.1, 0.2], [0.0, 0.0])).any()


# --- the probability of the answer


def answered(probabilities, **fields):
    """Rows with two gold tokens of these probabilities."""
    probabilities = torch.tensor(probabilities, dtype=torch.float64)
    logp = torch.full((len(probabilities), 5), -7.0, dtype=torch.float64)
    logp[:, 3:] = probabilities.log()
    return likelihood_batch(logp[:, 3:].sum(1), logp=logp, **fields)


def test_the_mean_probability_is_no_likelihood():
    batch = answered([[0.9, 0.1], [0.3, 0.3]])
    assert mean_answer_probability()(batch).value[:, 0].tolist() == pytest.approx([0.5, 0.3])
    assert batch.answer_logp.exp().tolist() == pytest.approx([0.09, 0.09])


def test_one_impossible_token_leaves_the_rest_of_the_reward():
    batch = answered([[0.9, 0.0], [0.2, 0.2]])
    assert mean_answer_probability()(batch).value[:, 0].tolist() == pytest.approx([0.45, 0.2])
    assert float(rlpr().credit(batch)[0, 0]) > 0 > float(verifree().credit(batch)[0, 0])


def test_the_answer_is_scored_and_not_learnt_from():
    batch = answered([[0.9, 0.1], [0.3, 0.3]])
    credit = rlpr().credit(batch)
    half = math.sqrt(0.5)  # (.5 - .4) / std of (.5, .3)
    assert credit[:, 0].tolist() == pytest.approx([half, -half], rel=1e-3)
    assert not credit[batch.answer].any()
    assert not credit[~batch.sampled].any()


def test_rows_without_an_answer_and_equal_groups_get_nothing():
    batch = answered([[0.9, 0.1], [0.3, 0.3], [0.5, 0.5]])
    gone = replace(batch, answer=batch.answer & torch.tensor([[True], [True], [False]]))
    assert not rlpr().credit(gone)[2].any()
    assert not rlpr().credit(answered([[0.7, 0.1], [0.1, 0.7]])).any()
