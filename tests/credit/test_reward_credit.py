"""Rewards made of length, difficulty, entropy and the answer's probability: worked numbers, traps, edges."""

import math
from dataclasses import replace

import pytest
import torch
from trl.rewards import get_cosine_scaled_reward, get_soft_overlong_punishment

from qredit.core.batch import RolloutBatch
from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.schedule import exponential, resolve_schedules
from qredit.credit.answer_probability import answer_probability_gain
from qredit.credit.difficulty import EASY, HARD, NO_TAG, add_difficulty_rewards, success_as_sign
from qredit.credit.length import (
    charge_length_above,
    grade_by_length,
    mix_in_length,
    subtract_length,
    subtract_overlong,
)
from qredit.credit.narrow_group import leave_out_narrow_groups
from qredit.credit.phase_entropy import reward_by_phase_entropy
from qredit.credit.reinforced import reinforce_drawn
from qredit.credit.reward import punish_degenerate, reward
from qredit.objectives import adactrl, aepo, dapo, dapo_overlong, pear, rlpr, t1
from qredit.utils.errors import QreditError
from tests.support.batches import reward_batch
from tests.support.rounding import same

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


def test_a_triangle_over_the_length_is_mixed_in():
    """From 0 to the peak at the budget, and to 0 at twice of it, where it stays; 3.7 tokens are 3."""
    batch = reward_batch([1.0, 0.0, 0.0, 1.0, 0.0], lengths=[2, 4, 6, 8, 12])
    found = shaped(mix_in_length(0.25, peak=2.0, budget=4.0), batch)
    assert found == pytest.approx([0.75 + 0.25, 0.5, 0.25, 0.75, 0.0])
    batch = reward_batch([0.0, 0.0], lengths=[3, 6])
    assert shaped(mix_in_length(1.0, peak=1.0, budget=3.7), batch) == pytest.approx([1.0, 0.0])
    assert shaped(mix_in_length(1.0, peak=1.0, budget=0.2), reward_batch([0.0], lengths=[1])) == [1.0]


def test_the_budget_of_rmt_shrinks_to_a_fifth():
    """800, 357 and 160 tokens at the beginning, in the middle and at the end of a run."""
    batch = reward_batch([0.0] * 3, lengths=[800, 357, 160])
    stage = mix_in_length(1.0, 1.0, exponential(800.0, 160.0))
    for place, progress in enumerate((0.0, 0.5, 1.0)):
        assert shaped(resolve_schedules(stage, progress), batch)[place] == 1.0
    assert exponential(800.0, 160.0).extremes == (160.0, 800.0)
    for start, end in ((0, 1), (1.0, 0.0), (1.0, math.inf)):
        with pytest.raises(QreditError, match="of exponential must be a number above 0"):
            exponential(start, end)


def test_a_price_per_token():
    assert shaped(subtract_length(0.5, length=10), reward_batch([1.0, 0.0], lengths=[4, 10])) == pytest.approx(
        [0.8, -0.5]
    )


# --- AdaCtrl


def tagged(rewards, tags, lengths, group=None):
    return reward_batch(rewards, group, lengths=lengths, extra={"difficulty_tag": torch.tensor(tags)})


def test_length_rewards_of_sheet_at_a_quarter_of_the_longest():
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


def test_rewards_0_and_1_are_the_same_as_minus_1_and_1():
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
    batch = reward_batch(rewards, lengths=[5] * len(rewards), extra={"sampler_entropy": entropy})
    return replace(batch, rationale=column < 3, close=column == 2, response=column > 2)


def test_the_phase_rewards_of_the_sheet():
    batch = entropic([0.6, 0.1], [0.2, 0.2], [1.0, 1.0])
    assert shaped(reward_by_phase_entropy(1.0, 0.0), batch) == pytest.approx([0.6, 1.0])


def test_any_other_answer_gets_its_reward_whatever_its_entropy():
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


def answered(probabilities, form, base=0.35, group=None, said=2):
    """A rollout for each list of gold tokens' probabilities, in two rows: before the gold answer and before its own.

    One rationale token, then two of the gold answer, or `said` of its own.
    """
    count = len(probabilities)
    gold = (torch.arange(2 * count) % 2 == 0)[:, None]
    column = torch.arange(max(3, 1 + said)).expand(2 * count, -1)
    logp = torch.full(column.shape, -7.0, dtype=torch.float64)
    logp[::2, 1:3] = torch.tensor(probabilities, dtype=torch.float64).log()
    reward = torch.full((2 * count,), torch.nan, dtype=torch.float64)
    reward[1::2] = torch.tensor(form, dtype=torch.float64)
    return RolloutBatch(
        mask=column < torch.where(gold, 3, 1 + said),
        rationale=column < 1,
        answer=gold & (column >= 1) & (column < 3),
        response=~gold & (column >= 1) & (column < 1 + said),
        group=torch.zeros(2 * count, dtype=torch.long) if group is None else torch.tensor(group).repeat_interleave(2),
        rollout=torch.arange(count).repeat_interleave(2),
        reward=reward,
        answer_logp=torch.where(gold, logp[:, 1:3].sum(1, keepdim=True), 0.0)[:, 0],
        logp=logp,
        extra={"base_probability": torch.full((2 * count,), base, dtype=torch.float64)},
    )


WORKED = [[0.8, 0.9], [0.2, 0.3], [0.1, 0.1], [0.5, 0.6]]  # means .85, .25, .10, .55


def test_the_worked_advantages_of_rlpr():
    credit = rlpr().credit(answered(WORKED, form=[1, 1, 1, 1]))
    assert credit[1::2, 0].tolist() == pytest.approx([1.375, -0.741, -0.741, 0.106], abs=6e-4)


def test_what_a_rationale_adds_is_clipped_and_mixed_with_form():
    value = answer_probability_gain()(answered(WORKED, form=[1, 0, 1, 0])).value
    assert value[1::2, 0].tolist() == pytest.approx([0.9 * 0.5 + 0.1, 0.0, 0.1, 0.9 * 0.2])
    assert not value[::2].any()
    bare = answer_probability_gain(format=0.0)(answered(WORKED, form=[1, 1, 1, 1], base=0.1)).value
    assert bare[1::2, 0].tolist() == pytest.approx([0.75, 0.15, 0.0, 0.45])


def test_one_impossible_token_leaves_the_rest_of_the_reward():
    batch = answered([[0.9, 0.0], [0.2, 0.2]], form=[0, 0], base=0.1)
    assert answer_probability_gain()(batch).value[1::2, 0].tolist() == pytest.approx([0.9 * 0.35, 0.9 * 0.1])


def test_the_sampled_completion_learns_and_the_gold_does_not():
    batch = answered(WORKED, form=[1, 1, 1, 1])
    credited = rlpr().evaluate(batch)
    assert not credited.value[batch.has_answer].any()
    assert (credited.value[~batch.has_answer] != 0).all()
    assert rlpr().denominators(batch, credited)["policy"] == 4 * 3, "rationale and sampled answer, once"
    long = answered(WORKED, form=[1, 1, 1, 1], said=5)
    assert rlpr().denominators(long, rlpr().evaluate(long))["policy"] == 4 * 6


def test_rollouts_without_answer_or_spread_get_nothing():
    batch = answered(WORKED, form=[1, 1, 1, math.nan])
    gone = replace(batch, answer=batch.answer & (torch.arange(8) != 0)[:, None])
    credit = rlpr().credit(gone)
    assert not credit[[0, 1, 6, 7]].any()
    assert not rlpr().credit(answered([[0.7, 0.1], [0.1, 0.7]], form=[1, 1])).any()


def test_rows_that_belong_to_no_rollout_are_refused():
    with pytest.raises(QreditError, match="rollout"):
        rlpr().credit(replace(answered(WORKED, form=[1, 1, 1, 1]), rollout=None))


def test_narrow_groups_are_left_out_from_the_eleventh_step_on():
    """A wide group and a narrow one, against half of the mean deviation of earlier steps."""
    stage = leave_out_narrow_groups()
    wide, narrow = [[0.9, 0.9], [0.3, 0.3]], [[0.5, 0.5], [0.49, 0.49]]
    batch = answered([*wide, *narrow], form=[1] * 4, base=0.0, group=[0, 0, 1, 1])
    made = answer_probability_gain()(batch)
    found = stage.statistics(made, batch)
    deviation = 0.9 * 0.6 / math.sqrt(2), 0.9 * 0.01 / math.sqrt(2)
    assert found["sum"] / found["rows"] == pytest.approx(sum(deviation) / 2)
    state = stage.init()
    for step in range(1, 11):
        assert torch.equal(stage.apply(made, batch, state).keep, made.keep), step
        state = stage.update(state, {"sum": float(step), "rows": 1.0})
    assert state == {"mean": pytest.approx(8.0), "counted": 5, "steps": 10}, "the plain mean of steps 6 to 10"
    state = stage.update(state, {"sum": 18.0, "rows": 1.0})
    assert state["mean"] == pytest.approx(0.99 * 8 + 0.01 * 18)
    left = stage.apply(made, batch, {"mean": sum(deviation) / 2, "counted": 5, "steps": 10})
    assert left.keep[1::2, 0].tolist() == [True, True, False, False]
    assert left.weight[:, 0].tolist() == [0, 1, 0, 1, 0, 0, 0, 0]
    bound = float(batch.groups.std(made.value[:, 0], made.keep[:, 0])[5])
    at_it = leave_out_narrow_groups(share=1.0).apply(made, batch, {"mean": bound, "counted": 5, "steps": 10})
    assert at_it.keep[1::2].all(), "not below the bound"


@pytest.mark.parametrize("changes", [{"counted_from": 0}, {"counted_from": 11}, {"decay": 1.5}])
def test_steps_that_cannot_be_are_refused(changes):
    with pytest.raises(QreditError):
        leave_out_narrow_groups(**changes)


# --- a price that holds a mean length


def long_and_short(long, short):
    """Two rollouts of reward 1 and of these lengths; a third one that nothing scored and that is very long."""
    return reward_batch([1.0, 1.0, math.nan], lengths=[long, short, 60])


def without_bounds(self, state, statistics):
    return {"price": state["price"] + self.rate * (statistics["tokens"] / statistics["rollouts"] / self.target - 1)}


def check_price():
    """Target 4, rate 0.5: lengths 8 and 4 are 1.5 times it, so λ rises by 0.25; lengths 2 and 2 half of it."""
    objective = Objective(on_span("sampled", reward() | charge_length_above(4, rate=0.5, most=0.4)))
    state, credits, prices = objective.init_state(), [], []
    for lengths in ((8, 4), (8, 4), (8, 4), (2, 2), (2, 2)):
        batch = long_and_short(*lengths)
        credits.append(objective.credit(batch, state)[:2, 0].tolist())
        state = objective.update_state(state, objective.statistics(batch, state))
        prices.append(state["sampled/1."]["price"])
    assert prices == pytest.approx([0.25, 0.4, 0.4, 0.15, 0.0])
    assert credits == [[1.0, 1.0], [0.75, 1.0], [pytest.approx(0.6), 1.0], [1.0, 1.0], [1.0, 1.0]]
    unscored = replace(long_and_short(8, 8), reward=torch.full((3,), math.nan, dtype=torch.float64))
    assert objective.update_state(state, objective.statistics(unscored, state)) == state


def test_the_price_rises_while_rollouts_are_too_long():
    check_price()


@pytest.mark.parametrize(
    ("part", "broken"),
    [
        ("update", without_bounds),
        ("update", lambda self, state, s: state),
        ("statistics", lambda self, c, batch: {"tokens": float(batch.sampled.sum()), "rollouts": 3.0}),
        (
            "apply",
            lambda self, c, batch, state: c.with_row(c.value[:, 0] - state["price"] * (batch.sampled.sum(1) / 4 - 1)),
        ),
    ],
    ids=["no bounds", "a constant price", "unscored ones count", "short ones earn"],
)
def test_a_broken_price_is_noticed(part, broken, monkeypatch):
    monkeypatch.setattr(charge_length_above, part, broken)
    with pytest.raises((AssertionError, ZeroDivisionError)):
        check_price()


def test_a_price_settles_where_the_mean_is_the_target():
    """Lengths that shorten with the price, as 8 - 16 λ, are 4 where λ = 1/4: dual ascent finds it from both sides."""
    for start in (0.0, 1.0):
        stage = charge_length_above(4, rate=0.1, most=1.0, start=start)
        state = stage.init()
        for _ in range(200):
            mean = max(8 - 16 * state["price"], 0.0)
            state = stage.update(state, {"tokens": 10 * mean, "rollouts": 10.0})
        assert state["price"] == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("changes", [{"target": 0}, {"rate": -0.1}, {"most": -1.0}, {"start": 2.0}])
def test_prices_out_of_range_are_refused(changes):
    with pytest.raises(QreditError, match=next(iter(changes))):
        charge_length_above(**({"target": 4, "rate": 0.1, "most": 1.0} | changes))


# --- rollouts that count whatever they earned, also without a reward


def check_reinforced():
    """Rewards 1, 0 and 0 have mean 1/3 and standard deviation 1/√3; the others were drawn in another way."""
    batch = reward_batch([1.0, 0.0, 0.0, NAN, NAN], extra={"reinforced": torch.tensor([False] * 3 + [True] * 2)})
    right, wrong = 2 / math.sqrt(3), -1 / math.sqrt(3)
    assert aepo().credit(batch)[:, 0].tolist() == pytest.approx([right, wrong, wrong, 1.0, 1.0], abs=1e-5)
    alone = replace(batch, reward=torch.tensor([NAN, 1.0, 1.0, NAN, NAN]))
    assert aepo().credit(alone)[:, 0].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_reinforced_rollouts_count_one_each():
    check_reinforced()


def check_degenerate():
    """Of 1, 0 and a degenerate one, scored or not: each less the mean of the others, and a drift about its own mean."""
    for earned in (1.0, NAN):
        batch = reward_batch(
            [1.0, 0.0, earned],
            extra={"degenerate": torch.tensor([False, False, True]), "logp@ema": torch.full((3, 3), -1.0)},
            logp=torch.tensor([[-1.0] * 3, [-2.0] * 3, [-3.0] * 3]),
            entropy=torch.zeros(3, 3),
        )
        credit = t1(entropy=0.0, kl=0.1).credit(batch)
        assert credit[:, 0].tolist() == pytest.approx([1.5 - 0.3, 0.0, -1.5 + 0.3])


def test_degenerate_rollouts_have_the_punishment():
    check_degenerate()


def unscored_left_out(field, value):
    """A mutant of both stages: a rollout without a reward stays out."""

    def call(self, coefficient, batch):
        return replace(coefficient, value=torch.where(batch.extra[field][:, None], value, coefficient.value))

    return call


@pytest.mark.parametrize(
    ("stage", "field", "value", "check"),
    [
        (reinforce_drawn, "reinforced", 1.0, check_reinforced),
        (punish_degenerate, "degenerate", -1.0, check_degenerate),
    ],
)
def test_leaving_unscored_ones_out_is_noticed(stage, field, value, check, monkeypatch):
    monkeypatch.setattr(stage, "__call__", unscored_left_out(field, value))
    with pytest.raises(AssertionError):
        check()
