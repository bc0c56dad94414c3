"""Claims of the rules over turns that are sentences of pools and critics: each once more, turn by turn in Python."""

import math
import statistics

import torch

from qredit.credit.answer_support import scale_by_answer_share
from qredit.credit.prefix_tree import average_over_branches
from qredit.credit.reward import scale_by_outcome, skip_unscored
from qredit.credit.turn import (
    center_by_pool,
    scale_by_pool_std,
    skip_equal_pools,
    subtract_pool_mean_of_others,
    sum_over_turns,
)
from qredit.credit.turn_critic import token_advantage, turn_advantage, turn_return
from qredit.objectives import (
    arpo,
    bi_level_gae,
    f_grpo,
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
from qredit.testing.laws import StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, UNSCORED
from tests.support.claims.turn import (
    every_turn,
    last_turns,
    on_tokens,
    outcome_turns,
    read_turns,
    same_group,
    scale_values,
    standardize,
    sum_to_come,
    turns_of,
)


def in_group(batch):
    """Whether two turns are of one group."""
    return lambda at, other: same_group(batch, at, other)


def in_place(batch):
    """Whether two turns are at one place of one group's rollouts."""
    return lambda at, other: same_group(batch, at, other) and at[1] == other[1]


def in_tree(batch):
    """Whether two turns are of one group and one tree."""
    tree = batch.extra["tree"].tolist()

    def alike(at, other):
        return at[0] == other[0] or (same_group(batch, at, other) and tree[at[0]] == tree[other[0]] >= 0)

    return alike


def in_state(batch):
    """Whether two turns were taken in one state of one group."""
    states = read_turns(batch, "state")
    return lambda at, other: at == other or (same_group(batch, at, other) and states[at] == states[other] >= 0)


def behind_one_text(batch):
    """Whether two turns of one group continue equal ids."""

    def before(at):
        return batch.ids[at[0], : turns_of(batch, at[0])[at[1]][0]].tolist()

    return lambda at, other: same_group(batch, at, other) and before(at) == before(other)


def standardize_or_keep(values, alike, epsilon):
    """`standardize`, but a value that is like no other stays."""
    found = standardize(values, alike, epsilon)
    for at, value in values.items():
        if sum(alike(at, other) for other in values) == 1:
            found[at] = value
    return found


def matchtir_reference(discount=0.9, compare=standardize):
    def reference(batch):
        whole = compare(outcome_turns(batch), in_group(batch), 1e-6)
        returns = compare(sum_to_come(read_turns(batch, "turn_reward"), batch, discount), in_place(batch), 1e-6)
        return on_tokens(batch, scale_values(sum_to_come(whole, batch, 1.0), 0.5), scale_values(returns, 0.5))

    return reference


def mica_reference(delayed=0.5, immediate=0.5, discount=0.85):
    def reference(batch):
        rewards = read_turns(batch, "turn_reward")
        returns = standardize(sum_to_come(rewards, batch, discount), in_place(batch), 1e-6)
        own = standardize(rewards, in_group(batch), 1e-6)
        return on_tokens(batch, scale_values(returns, delayed), scale_values(own, immediate))

    return reference


def gtpo_reference(alike_in, discount=0.9):
    def reference(batch):
        returns = sum_to_come(read_turns(batch, "turn_reward"), batch, discount)
        return on_tokens(batch, standardize(returns, alike_in(batch), 1e-6))

    return reference


def slate_reference(batch):
    return on_tokens(batch, standardize(read_turns(batch, "turn_reward"), behind_one_text(batch), 1e-6))


def vpr_reference(alike_in, outcome=0.0):
    def reference(batch):
        rewards = read_turns(batch, "turn_reward")
        earned = {at: r + outcome * float(batch.reward[at[0]]) * (at in last_turns(batch)) for at, r in rewards.items()}
        alike = alike_in(batch)
        centred = {}
        for at, value in earned.items():
            pool = [other_value for other, other_value in earned.items() if alike(at, other)]
            if max(pool) > min(pool):
                centred[at] = value - statistics.fmean(pool)
        return on_tokens(batch, standardize(centred, lambda at, other: True, 1e-8, statistics.pstdev))

    return reference


def tree_grpo_reference(compare=standardize):
    def reference(batch):
        parts = [compare(outcome_turns(batch), alike, 1e-6) for alike in (in_group(batch), in_tree(batch))]
        return on_tokens(batch, *(sum_to_come(part, batch, 1.0) for part in parts))

    return reference


def f_grpo_reference(strength=1.0):
    def reference(batch):
        rewards, last = read_turns(batch, "turn_reward"), last_turns(batch)
        proposals = {at: value for at, value in rewards.items() if at not in last}
        ranking = {at: value for at, value in rewards.items() if at in last}
        return on_tokens(
            batch,
            standardize(proposals, in_place(batch), None),
            scale_values(standardize(ranking, in_group(batch), None), strength),
        )

    return reference


def siop_reference(terminal=0.5, discount=1.0):
    def reference(batch):
        before, after = (read_turns(batch, f"support@{when}") for when in ("before", "after"))
        cluster = batch.extra["cluster"].tolist()
        earned = {}
        scored = (~batch.reward.isnan()).tolist()
        for row, k in every_turn(batch):
            if not scored[row]:
                continue
            own = [n for n in range(len(cluster)) if batch.group[n] == batch.group[row] and scored[n]]
            answered = [cluster[n] for n in own if cluster[n] >= 0]
            share = answered.count(cluster[row]) / len(answered) if cluster[row] >= 0 else 0.0
            gain = math.log(math.exp(after[row, k]) + 1e-8) - math.log(math.exp(before[row, k]) + 1e-8)
            gain = gain if len(turns_of(batch, row)) > 1 else 0.0
            earned[row, k] = share * (gain + terminal * ((row, k) in last_turns(batch)))
        return on_tokens(batch, sum_to_come(standardize(earned, in_group(batch), 1e-6), batch, discount))

    return reference


def istar_reference(strength=1.0, beta=0.05, base=None):
    def reference(batch):
        told = batch.extra["logp@prm"] - (batch.sampler_logp if base is None else batch.extra[base])
        steps = {(i, k): beta * float(told[i, turns_of(batch, i)[k]].sum()) for i, k in every_turn(batch)}
        outcome = {at: float(batch.reward[at[0]]) for at in last_turns(batch)}
        parts = []
        for values, factor in ((outcome, 1.0), (steps, strength)):
            found = {}
            for at, value in values.items():
                others = [v for other, v in values.items() if other != at and same_group(batch, at, other)]
                found[at] = factor * (value - (statistics.fmean(others) if others else 0.0))
            parts.append(found)
        return on_tokens(batch, sum_to_come(parts[0], batch, 1.0), parts[1])

    return reference


def arpo_reference(batch):
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    whole = standardize(outcome_turns(batch), in_group(batch), 1e-6)
    advantage = {row: value for (row, _), value in whole.items()}
    for row, column in batch.sampled.nonzero().tolist():
        text = batch.ids[row, : column + 1].tolist()
        sharing = [
            value
            for other, value in advantage.items()
            if batch.group[other] == batch.group[row]
            and bool(batch.mask[other, column])
            and batch.ids[other, : column + 1].tolist() == text
        ]
        credit[row, column] = statistics.fmean(sharing) if row in advantage else 0.0
    return credit


def estimate(rewards, values, discounts, decay):
    """Σ_u Π (γ λ) δ_u from each place on, δ = r + γ V' - V: by its sum, and not by its recursion."""
    errors = [r + g * after - v for r, v, after, g in zip(rewards, values, [*values[1:], 0.0], discounts, strict=True)]
    return [
        sum(math.prod(g * decay for g in discounts[t:u]) * errors[u] for u in range(t, len(errors)))
        for t in range(len(errors))
    ]


def by_critic(find):
    """(B, T) of what `find` says of a rollout: (rewards of turns, their columns, values) → a number for each column."""

    def reference(batch):
        credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
        rewards, value = read_turns(batch, "turn_reward"), batch.extra["value"].tolist()
        for row in range(len(batch.group)):
            turns = turns_of(batch, row)
            if turns:
                earned = [rewards[row, k] for k in range(len(turns))]
                for column, number in find(earned, turns, value[row], float(batch.reward[row])).items():
                    credit[row, column] = number
        return credit

    return reference


def turn_ppo_reference(discount=0.99, decay=0.9):
    def find(earned, turns, value, outcome):
        found = estimate(earned, [value[turn[0]] for turn in turns], [discount] * len(turns), decay)
        return {column: a for turn, a in zip(turns, found, strict=True) for column in turn}

    return by_critic(find)


def over_tokens(earned, turns, value, discount, decay, turn_discount):
    """Advantages of the tokens of a rollout's turns."""
    columns = [column for turn in turns for column in turn]
    paid = {turn[-1]: r for turn, r in zip(turns, earned, strict=True)}
    gammas = [turn_discount if column in paid else discount for column in columns]
    found = estimate([paid.get(c, 0.0) for c in columns], [value[c] for c in columns], gammas, decay)
    return dict(zip(columns, found, strict=True))


def poad_reference(turn_discount=0.95, discount=1.0, decay=0.95):
    return by_critic(
        lambda earned, turns, value, outcome: over_tokens(earned, turns, value, discount, decay, turn_discount)
    )


def whiten(reference):
    """Less the mean, over √(variance + 1e-8), of all tokens of scored rollouts."""

    def whitened(batch):
        credit = reference(batch)
        at = [(row, column) for row in range(len(credit)) for turn in turns_of(batch, row) for column in turn]
        values = [float(credit[place]) for place in at]
        for place, value in zip(at, values, strict=True):
            credit[place] = (value - statistics.fmean(values)) / math.sqrt(statistics.variance(values) + 1e-8)
        return credit

    return whitened


def bi_level_reference(turn_discount, discount=1.0, decay=1.0):
    def find(earned, turns, value, outcome):
        last = [value[turn[-1]] for turn in turns]
        advantages = estimate(earned, last, [turn_discount] * len(turns), decay)
        returns = [a + v for a, v in zip(advantages, last, strict=True)]
        return over_tokens(returns, turns, value, discount, decay, 0.0)

    return whiten(by_critic(find))


def r3_rag_reference(right=1.6, wrong=0.8, answer=2.0, decay=1.0):
    def find(earned, turns, value, outcome):
        scaled = [(right if outcome > 0 else wrong) * r for r in earned[:-1]] + [answer * outcome]
        return over_tokens(scaled, turns, value, 1.0, decay, 0.0)

    return whiten(by_critic(find))


BUT_THAT_IT_IS_NAN = frozenset({"reward"})
BATTERY: tuple[Subject, ...] = (
    Subject(matchtir(), reference=matchtir_reference(), zero=(UNSCORED,)),
    Subject(matchtir(0.5, keep_lone=True), reference=matchtir_reference(0.5, standardize_or_keep), zero=(UNSCORED,)),
    Subject(mica(), reference=mica_reference(), zero=(UNSCORED,), unused=BUT_THAT_IT_IS_NAN),
    Subject(mica(0.3, 0.7, 1.0), reference=mica_reference(0.3, 0.7, 1.0), unused=BUT_THAT_IT_IS_NAN),
    Subject(gtpo("turn"), reference=gtpo_reference(in_place), zero=(UNSCORED,), unused=BUT_THAT_IT_IS_NAN),
    Subject(gtpo("prompt", 0.5), reference=gtpo_reference(in_group, 0.5), unused=BUT_THAT_IT_IS_NAN),
    Subject(
        slate(),
        reference=slate_reference,
        zero=(UNSCORED,),
        unused=BUT_THAT_IT_IS_NAN | {"ids"},  # of random ids no two turns but the first continue one text
    ),
    Subject(vpr(), reference=vpr_reference(in_state), zero=(UNSCORED,), unused=BUT_THAT_IT_IS_NAN),
    Subject(vpr("turn", 0.5), reference=vpr_reference(in_place, 0.5), zero=(UNSCORED,)),
    Subject(
        tree_grpo(),
        reference=tree_grpo_reference(),
        zero=(UNSCORED, EQUAL_REWARDS),
        unused=frozenset({"turn"}),  # it pays whole rollouts
    ),
    Subject(
        tree_grpo(keep_lone=True),
        reference=tree_grpo_reference(standardize_or_keep),
        zero=(UNSCORED,),
        unused=frozenset({"turn"}),
    ),
    Subject(f_grpo(), reference=f_grpo_reference(), zero=(UNSCORED,), unused=BUT_THAT_IT_IS_NAN),
    Subject(f_grpo(0.3), reference=f_grpo_reference(0.3), unused=BUT_THAT_IT_IS_NAN),
    Subject(siop(), reference=siop_reference(), unused=frozenset({"reward"})),
    Subject(siop(0.2, 0.5), reference=siop_reference(0.2, 0.5), unused=frozenset({"reward"})),
    # off policy the base is what the sampler said, and `logp` stands for it on policy alone
    Subject(istar("prm"), reference=istar_reference(), zero=(UNSCORED,), unused=frozenset({"logp"})),
    Subject(istar("prm", "reference", 0.5, 0.1), reference=istar_reference(0.5, 0.1, "logp@reference")),
    Subject(arpo(), reference=arpo_reference, zero=(UNSCORED, EQUAL_REWARDS)),
    Subject(turn_ppo(), reference=turn_ppo_reference(), zero=(UNSCORED,), unused=BUT_THAT_IT_IS_NAN),
    Subject(turn_ppo(0.5, 0.3), reference=turn_ppo_reference(0.5, 0.3), unused=BUT_THAT_IT_IS_NAN),
    Subject(poad(), reference=poad_reference(), zero=(UNSCORED,), unused=BUT_THAT_IT_IS_NAN),
    Subject(poad(0.7, 0.7, 0.5), reference=poad_reference(0.7, 0.7, 0.5), unused=BUT_THAT_IT_IS_NAN),
    Subject(bi_level_gae(0.95), reference=bi_level_reference(0.95), zero=(UNSCORED,), unused=BUT_THAT_IT_IS_NAN),
    Subject(bi_level_gae(0.5, 0.9, 0.8), reference=bi_level_reference(0.5, 0.9, 0.8), unused=BUT_THAT_IT_IS_NAN),
    Subject(r3_rag(), reference=r3_rag_reference(), zero=(UNSCORED,)),
    Subject(r3_rag(1.0, 0.5, 3.0, 0.9), reference=r3_rag_reference(1.0, 0.5, 3.0, 0.9), zero=(UNSCORED,)),
)
STAGES: tuple[StageSubject, ...] = (
    *(StageSubject(center_by_pool(pool, True), linear=True) for pool in ("sibling", "tree")),
    *(StageSubject(scale_by_pool_std(pool, keep_lone=True)) for pool in ("sibling", "tree")),
    *(StageSubject(subtract_pool_mean_of_others(pool), linear=True) for pool in ("prompt", "sibling", "tree")),
    *(StageSubject(skip_equal_pools(pool), linear=True) for pool in ("state", "sibling")),
    StageSubject(sum_over_turns(), linear=True),
    StageSubject(turn_advantage(0.9, 0.8)),
    StageSubject(turn_return(0.9, 0.8)),
    StageSubject(token_advantage(0.9, 0.8, 0.7)),
    StageSubject(skip_unscored(), linear=True),
    StageSubject(scale_by_outcome(1.6, 0.8), linear=True),
    StageSubject(scale_by_answer_share(), linear=True),
    StageSubject(average_over_branches(), linear=True),
)
