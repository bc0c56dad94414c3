"""Claims of the methods over turns: each formula once more, turn by turn in plain Python."""

import math
import statistics
from functools import partial

import torch

from qredit.core.chain import chain, on_span
from qredit.core.objective import Objective
from qredit.credit.clip_scale import scale_clip
from qredit.credit.group import center_by_group
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
from qredit.credit.turn_certainty import scale_by_turn_certainty
from qredit.objectives import a2tgpo, empg, gigpo, grpo, igpo, mt_grpo
from qredit.testing.laws import StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, UNSCORED
from tests.support.claims.step import tokens_of


def turns_of(batch, row):
    """Positions of each turn of a row, in the order of the numbers; none where the row was not scored."""
    found = {}
    for column in tokens_of(batch, row) if not batch.reward[row].isnan() else []:
        found.setdefault(int(batch.turn[row, column]), []).append(column)
    return [found[number] for number in sorted(found)]


def every_turn(batch):
    """(row, place) of all turns."""
    return [(row, k) for row in range(len(batch.group)) for k in range(len(turns_of(batch, row)))]


def read_turns(batch, name):
    """(row, place) → what stands on the last token of the turn, where it is not NaN."""
    values = {at: float(batch.extra[name][at[0], turns_of(batch, at[0])[at[1]][-1]]) for at in every_turn(batch)}
    return {at: value for at, value in values.items() if not math.isnan(value)}


def last_turns(batch):
    """(row, place) of the last turn of each row."""
    return {(row, len(turns_of(batch, row)) - 1) for row, _ in every_turn(batch)}


def outcome_turns(batch):
    """The outcome of each row, at its last turn."""
    return {at: float(batch.reward[at[0]]) for at in last_turns(batch)}


def same_group(batch, at, other):
    return bool(batch.group[at[0]] == batch.group[other[0]])


def standardize(values, alike, epsilon, std=statistics.stdev):
    """Each value less the mean of those alike, over their spread plus epsilon; not divided where epsilon is None."""
    found = {}
    for at, value in values.items():
        pool = [other_value for other, other_value in values.items() if alike(at, other)]
        spread = 1.0 if epsilon is None else (std(pool) if len(pool) > 1 else 0.0) + epsilon
        found[at] = (value - statistics.fmean(pool)) / spread if max(pool) > min(pool) else 0.0
    return found


def sum_to_come(values, batch, discount):
    """Σ_{j≥k} discount^{j-k} of the values, at each turn that has one or is before one that has."""
    found = {}
    for row, k in every_turn(batch):
        later = {j: value for (other, j), value in values.items() if other == row and j >= k}
        if later:
            found[row, k] = sum(discount ** (j - k) * value for j, value in later.items())
    return found


def on_tokens(batch, *parts):
    """(B, T) the sum of (row, place) → value on the tokens of each turn."""
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for part in parts:
        for (row, k), value in part.items():
            credit[row, turns_of(batch, row)[k]] += value
    return credit


def scale_values(values, factor):
    return {at: factor * value for at, value in values.items()}


def gigpo_reference(strength=1.0, discount=0.95, history=0, exponent=1.0, epsilon=1e-6):
    def reference(batch):
        states = read_turns(batch, "state")

        def alike(depth):
            def same(at, other):
                if at == other:
                    return True
                before = [[states.get((row, k - n), -1) for n in range(depth + 1)] for row, k in (at, other)]
                return same_group(batch, at, other) and before[0] == before[1] and min(before[0]) >= 0

            return same

        returns = sum_to_come(read_turns(batch, "turn_reward"), batch, discount)
        outcome = standardize(outcome_turns(batch), lambda at, other: same_group(batch, at, other), epsilon)
        weights = [(n + 1) ** exponent for n in range(history + 1)]
        nested = [
            scale_values(standardize(returns, alike(n), epsilon), strength * weight / sum(weights))
            for n, weight in enumerate(weights)
        ]
        return on_tokens(batch, sum_to_come(outcome, batch, 1.0), *nested)

    return reference


def mt_grpo_reference(strength=1.0, epsilon=1e-4):
    def reference(batch):
        given = {at: r for at, r in read_turns(batch, "turn_reward").items() if at not in last_turns(batch)}
        turns = standardize(given, lambda at, other: same_group(batch, at, other) and at[1] == other[1], epsilon)
        outcome = standardize(outcome_turns(batch), lambda at, other: same_group(batch, at, other), epsilon)
        return on_tokens(batch, sum_to_come(outcome, batch, 1.0), scale_values(turns, strength))

    return reference


def gains_of(batch, logarithm):
    """p after each turn but the last less p before it."""
    before = read_turns(batch, "answer_logp_at")
    belief = before if logarithm else {at: math.exp(value) for at, value in before.items()}
    return {(row, k): belief[row, k + 1] - p for (row, k), p in belief.items() if (row, k + 1) in belief}


def igpo_reference(discount=1.0, joint=True, logarithm=False):
    def reference(batch):
        def standardized(values):
            return standardize(values, lambda at, other: same_group(batch, at, other), 1e-6, statistics.pstdev)

        gains, outcome = gains_of(batch, logarithm), outcome_turns(batch)
        values = standardized(gains | outcome) if joint else standardized(gains) | standardized(outcome)
        return on_tokens(batch, sum_to_come(values, batch, discount))

    return reference


def a2tgpo_reference(strength=1.0, discount=1.0, logarithm=False):
    def reference(batch):
        def same_place(at, other):
            return same_group(batch, at, other) and at[1] == other[1]

        gains = standardize(gains_of(batch, logarithm), same_place, 1e-6, statistics.pstdev)
        left = {at: sum(other[0] == at[0] and other[1] >= at[1] for other in gains) for at in gains}
        summed = sum_to_come(gains, batch, discount)
        rooted = {at: strength * value / math.sqrt(left[at]) for at, value in summed.items()}
        outcome = outcome_turns(batch)
        whole = standardize(outcome, lambda at, other: same_group(batch, at, other), 1e-6, statistics.pstdev)
        return on_tokens(batch, sum_to_come(whole, batch, 1.0), rooted)

    return reference


def a2tgpo_loss(logp, batch, low=3e-3, high=4e-3, widening=0.3):
    """The mean over rollouts of their tokens' mean; each turn is clipped as a whole, and its tokens carry its slope."""
    total, credit = torch.zeros((), dtype=torch.float64), a2tgpo_reference()(batch)

    def same_place(at, other):
        return same_group(batch, at, other) and at[1] == other[1]

    gains = standardize(gains_of(batch, False), same_place, 1e-6, statistics.pstdev)
    for row in range(len(batch.group)):
        for place, turn in enumerate(turns_of(batch, row)):
            change = (logp[row, turn] - batch.sampler_logp[row, turn]).detach().mean().exp()
            ratio = change * (logp[row, turn] - logp[row, turn].detach()).exp()
            advantage = credit[row, turn]
            wide = 1 + widening * math.tanh(gains.get((row, place), 0.0) / 2)  # 2 sigmoid(x) - 1 = tanh(x/2)
            clipped = torch.minimum(ratio * advantage, ratio.clamp(1 - low * wide, 1 + high * wide) * advantage)
            total = total - clipped.sum() / len(tokens_of(batch, row))
    return total / len(batch.group)


def empg_reference(bonus, strength=1.0, bonus_strength=1.0):
    def reference(batch):
        entropy = {
            at: statistics.fmean(float(batch.extra["sampler_entropy"][at[0], c]) for c in turns_of(batch, at[0])[at[1]])
            for at in every_turn(batch)
        }
        low, width = min(entropy.values()), max(entropy.values()) - min(entropy.values())
        rank = {at: (value - low) / width if width else 0.0 for at, value in entropy.items()}
        mean = statistics.fmean(math.exp(-strength * h) for h in rank.values())
        whole = standardize(outcome_turns(batch), lambda at, other: same_group(batch, at, other), 1e-4)
        credit = {}
        for (row, k), outcome in sum_to_come(whole, batch, 1.0).items():
            ahead = math.exp(-bonus_strength * rank[row, k + 1]) if (row, k + 1) in rank else 0.0
            credit[row, k] = outcome * math.exp(-strength * rank[row, k]) / mean + bonus * ahead
        middle = statistics.fmean(credit.values())
        return on_tokens(batch, {at: value - middle for at, value in credit.items()})

    return reference


def credit_turns(*credits):
    """An objective of turn rewards."""
    return Objective(on_span("sampled", chain(turn_reward(), *credits)))


def credit_over_outcome(*credits, source=None):
    """The centred outcome and what these make of turn rewards."""
    turns = chain(turn_reward() if source is None else source, *credits)
    return Objective(on_span("sampled", (reward() | center_by_group()) + turns))


def matched_returns(batch):
    """λ-returns, standardised among the turns at one place: the turn part of MatchTIR (arXiv 2601.10712)."""
    returns = sum_to_come(read_turns(batch, "turn_reward"), batch, 0.9)
    return on_tokens(
        batch, standardize(returns, lambda at, other: same_group(batch, at, other) and at[1] == other[1], 1e-6)
    )


def _over_the_batch(batch):
    """Rewards standardised over all turns of the step, each then divided by the root of how many are left."""
    values = standardize(read_turns(batch, "turn_reward"), lambda at, other: True, 0.1)
    left = {at: sum(other[0] == at[0] and other[1] >= at[1] for other in values) for at in values}
    return on_tokens(batch, {at: value / math.sqrt(left[at]) for at, value in values.items()})


BATTERY: tuple[Subject, ...] = (
    Subject(gigpo(), reference=gigpo_reference(), zero=(UNSCORED,)),
    Subject(gigpo(scale=False, strength=0.5, discount=0.5), reference=gigpo_reference(0.5, 0.5, epsilon=None)),
    Subject(gigpo(history=1, exponent=2.0), reference=gigpo_reference(history=1, exponent=2.0)),
    Subject(mt_grpo(), reference=mt_grpo_reference(), zero=(UNSCORED,)),
    Subject(mt_grpo(strength=0.3), reference=mt_grpo_reference(0.3)),
    Subject(
        mt_grpo(strength=0.0),
        equals=((grpo(), lambda size: 1.0),),
        zero=(UNSCORED, EQUAL_REWARDS),
        unused=frozenset({"turn", "turn_reward"}),
    ),
    Subject(igpo(), reference=igpo_reference(), zero=(UNSCORED,)),
    Subject(igpo(0.7, joint=False, logarithm=True), reference=igpo_reference(0.7, False, True), zero=(UNSCORED,)),
    Subject(a2tgpo(), reference=a2tgpo_reference(), loss=a2tgpo_loss, zero=(UNSCORED,)),
    Subject(
        a2tgpo(epsilon_low=0.05, epsilon_high=0.08, widening=0.9),
        loss=partial(a2tgpo_loss, low=0.05, high=0.08, widening=0.9),
    ),
    Subject(a2tgpo(0.3, 0.7, logarithm=True), reference=a2tgpo_reference(0.3, 0.7, True)),
    Subject(empg(bonus=0.05), reference=empg_reference(0.05), zero=(UNSCORED,)),
    Subject(
        empg(bonus=0.3, strength=0.5, bonus_strength=2.0), reference=empg_reference(0.3, 0.5, 2.0), zero=(UNSCORED,)
    ),
    Subject(
        credit_turns(sum_turns_to_come(0.9), center_by_pool("turn"), scale_by_pool_std("turn", 1e-6)),
        reference=matched_returns,
        unused=frozenset({"reward"}),  # but that it is NaN
    ),
    Subject(
        credit_turns(center_by_pool("batch"), scale_by_pool_std("batch", 0.1), divide_by_root_of_turns_to_come()),
        reference=_over_the_batch,
        zero=(UNSCORED,),
        unused=frozenset({"reward"}),
    ),
    Subject(
        Objective(on_span("sampled", reward() | at_last_turn() | sum_turns_to_come())),
        equals=((Objective(on_span("sampled", reward())), lambda size: 1.0),),
        unused=frozenset({"turn"}),
    ),
)
STAGES: tuple[StageSubject, ...] = (
    StageSubject(at_last_turn(), linear=True),
    StageSubject(skip_last_turn(), linear=True),
    StageSubject(scale_by_turn_certainty(), linear=True),
    StageSubject(scale_clip(0.3), linear=True),
    StageSubject(sum_turns_to_come(0.9), linear=True),
    StageSubject(divide_by_root_of_turns_to_come(), linear=True),
    *(StageSubject(center_by_pool(pool), linear=True) for pool in ("prompt", "turn", "state", "state@1", "batch")),
    *(StageSubject(scale_by_pool_std(pool)) for pool in ("prompt", "turn", "state", "batch")),
    StageSubject(on_span("rationale", sum_turns_to_come()), linear=True, span="rationale"),
)
