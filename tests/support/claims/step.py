"""Claims of the step family: each formula once more, row by row in plain Python."""

import math
import statistics

import torch

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.macro import macro_advantage, macro_advantage_by_last, macro_advantage_by_position
from qredit.credit.per_token import (
    at_last_token,
    standardize_tokens_by_group,
    subtract_token_mean_of_others,
    sum_to_come,
)
from qredit.credit.reward import reward
from qredit.credit.step import skip_step_ends, subtract_step_share_of_others, weight_worst_steps, worst_to_come
from qredit.credit.turn_entropy import scale_by_turn_entropy
from qredit.credit.wrong_step import charge_wrong_steps, settle_unused_steps
from qredit.objectives import aem, brpo, capo, grpo, ma_rlhf, pure, pure_strict, tp_grpo
from qredit.testing.laws import StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, UNSCORED


def tokens_of(batch, row):
    """Positions of a row's sampled tokens."""
    return [column for column in range(batch.mask.shape[1]) if batch.sampled[row, column]]


def others_of(batch, row):
    """The other rows of a row's group."""
    return [other for other in range(len(batch.group)) if other != row and batch.group[other] == batch.group[row]]


def group_of(batch, row):
    """All rows of a row's group."""
    return [other for other in range(len(batch.group)) if batch.group[other] == batch.group[row]]


def less_the_others(batch, row, number):
    """A number of each row less its mean over the other scored rows of the group; 0 for an unscored row."""
    others = [number(other) for other in others_of(batch, row) if not batch.reward[other].isnan()]
    own = 0.0 if batch.reward[row].isnan() else number(row)
    return 0.0 if batch.reward[row].isnan() else own - (sum(others) / len(others) if others else 0.0)


def runs(batch, row, field):
    """Positions of each numbered run of a row, in the order of the numbers."""
    found = {}
    for column in tokens_of(batch, row):
        number = int(batch.extra[field][row, column])
        if number >= 0:
            found.setdefault(number, []).append(column)
    return [found[number] for number in sorted(found)]


def _outcome(batch, row):
    return less_the_others(batch, row, lambda other: float(batch.reward[other]))


def _soft_scores(batch, row, temperature):
    """(positions of a step, softmin weight times its score) for each step."""
    steps = runs(batch, row, "step")
    scores = [float(batch.extra["step_score"][row, step[-1]]) for step in steps]
    weights = [math.exp(-score / temperature) for score in scores]
    return [(step, w / sum(weights) * s) for step, w, s in zip(steps, weights, scores, strict=True)]


def _pure(temperature, verifiable):
    def reference(batch):
        credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
        for row in range(len(batch.group)):
            soft = _soft_scores(batch, row, temperature)
            others = others_of(batch, row)
            tokens = sum(len(tokens_of(batch, other)) for other in others)
            earned = sum(part for other in others for _, part in _soft_scores(batch, other, temperature))
            rate = earned / tokens if tokens else 0.0
            for column in tokens_of(batch, row):
                left = [(step, part) for step, part in soft if step[-1] >= column]
                credit[row, column] = sum(part - len(step) * rate for step, part in left)
                credit[row, column] += verifiable * _outcome(batch, row)
            for step, _ in soft:
                credit[row, step[-1]] = 0.0
        return credit

    return reference


def _strict_returns(batch, row):
    """The worst score still to come, by position."""
    ends = {step[-1]: float(batch.extra["step_score"][row, step[-1]]) for step in runs(batch, row, "step")}
    return {
        column: min((score for end, score in ends.items() if end >= column), default=0.0)
        for column in tokens_of(batch, row)
    }


def _pure_strict(batch):
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row in range(len(batch.group)):
        others = [value for other in others_of(batch, row) for value in _strict_returns(batch, other).values()]
        baseline = sum(others) / len(others) if others else 0.0
        ends = {step[-1] for step in runs(batch, row, "step")}
        for column, value in _strict_returns(batch, row).items():
            credit[row, column] = 0.0 if column in ends else value - baseline + _outcome(batch, row)
    return credit


def _capo(whole, process):
    def reference(batch):
        def at(row, column):
            return whole * float(batch.reward[row]) - process * float(batch.extra["wrong_step"][row, column])

        credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
        for row in range(len(batch.group)):
            scored = [other for other in group_of(batch, row) if not batch.reward[other].isnan()]
            pool = [at(other, column) for other in scored for column in tokens_of(batch, other)]
            for column in tokens_of(batch, row) if row in scored else []:
                spread = statistics.stdev(pool) if len(pool) > 1 else 0.0
                credit[row, column] = (at(row, column) - statistics.fmean(pool)) / spread if spread else 0.0
        return credit

    return reference


def _tp_grpo(alpha):
    def reference(batch):
        credit = grpo().credit(batch).double()
        for row in range(len(batch.group)):
            scored = [float(batch.reward[other]) for other in group_of(batch, row) if not batch.reward[other].isnan()]
            accuracy = sum(value > 0 for value in scored) / len(scored) if scored else 0.0
            for column in tokens_of(batch, row):
                if batch.extra["unused_step"][row, column] and not batch.reward[row].isnan():
                    right = float(batch.reward[row]) > 0
                    credit[row, column] = credit[row, column] - alpha * accuracy if right else 0.0
        return credit

    return reference


def _macro_reference(share, discount=1.0, decay=0.95):
    """A_τ = Σ_k (γλ)^k δ_{τ+k}, by its sum and not by its recursion."""

    def reference(batch):
        credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
        for row in range(len(batch.group)):
            if batch.reward[row].isnan() or not tokens_of(batch, row):
                continue
            last, pooled = tokens_of(batch, row)[-1], []
            macros = runs(batch, row, "macro")
            for macro in macros:
                weights = [share(place, len(macro)) for place in range(len(macro))]
                earned = sum(w * float(batch.reward[row]) for w, c in zip(weights, macro, strict=True) if c == last)
                value = sum(w * float(batch.extra["value"][row, c]) for w, c in zip(weights, macro, strict=True))
                pooled.append((earned / sum(weights), value / sum(weights)))
            ahead = [value for _, value in pooled[1:]] + [0.0]
            errors = [r + discount * after - v for (r, v), after in zip(pooled, ahead, strict=True)]
            for place, macro in enumerate(macros):
                total = sum((discount * decay) ** k * error for k, error in enumerate(errors[place:]))
                credit[row, macro] = total
        return credit

    return reference


def _macro_objective(stage):
    return Objective(on_span("sampled", reward() | at_last_token() | stage))


def _brpo(prior):
    def reference(batch):
        count = len(prior)

        def earned(row):
            return [float(batch.extra[f"budget_reward@{j}"][row]) for j in range(count)]

        def ahead(row, s):
            return sum(prior[j] * earned(row)[j] for j in range(s, count))

        credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
        for row in range(len(batch.group)):
            for column in tokens_of(batch, row):
                s = int(batch.extra["budget"][row, column])
                if s < 0 or not batch.rationale[row, column]:
                    continue
                powers = [2.0**j for j in range(s)]
                own = sum(p * r for p, r in zip(powers, earned(row), strict=False)) / sum(powers) if s else 0.0
                members = group_of(batch, row)
                mean = statistics.fmean(ahead(other, s) for other in members) if len(members) > 1 else 0.0
                own *= sum(prior[s:])
                credit[row, column] = ahead(row, s) - s / count * own - (count - s) / count * mean
        return credit

    return reference


_PRIOR = (0.1, 0.2, 0.3, 0.4)


def _brpo_loss(logp, batch):
    """Σ over tokens / (rows × 8), whatever the rows are padded to."""
    total, credit = torch.zeros((), dtype=torch.float64), _brpo(_PRIOR)(batch)
    for row, column in batch.sampled.nonzero().tolist():
        ratio, advantage = (logp[row, column] - batch.sampler_logp[row, column]).exp(), float(credit[row, column])
        total = total - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    return total / (8 * len(batch.group))


def _aem(strength=1.0, least_range=0.1):
    """GRPO's advantage times e^{-λ h} over its mean, h the entropies of all turns of the group between 0 and 1."""

    def turns(batch, row):
        found = {}
        for column in [] if batch.reward[row].isnan() else tokens_of(batch, row):
            found.setdefault(int(batch.turn[row, column]), []).append(column)
        return list(found.values())

    def entropy(batch, row, turn):
        return statistics.fmean(float(batch.extra["sampler_entropy"][row, column]) for column in turn)

    def reference(batch):
        credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
        for row in range(len(batch.group)):
            every = [entropy(batch, other, turn) for other in group_of(batch, row) for turn in turns(batch, other)]
            rewards = [float(batch.reward[n]) for n in group_of(batch, row) if not batch.reward[n].isnan()]
            for turn in turns(batch, row) if len(set(rewards)) > 1 else []:
                advantage = (float(batch.reward[row]) - statistics.fmean(rewards)) / (statistics.stdev(rewards) + 1e-4)
                low, width = min(every), max(every) - min(every)
                if width > 0 and width >= least_range:
                    mean = statistics.fmean(math.exp(-strength * (one - low) / width) for one in every)
                    advantage *= math.exp(-strength * (entropy(batch, row, turn) - low) / width) / mean
                credit[row, turn] = advantage
        return credit

    return reference


BATTERY: tuple[Subject, ...] = (
    Subject(aem(), reference=_aem(), zero=(UNSCORED, EQUAL_REWARDS)),
    Subject(aem(strength=0.5, least_range=1.0), reference=_aem(0.5, 1.0)),  # some groups of the batches are narrower
    Subject(aem(strength=0.0), equals=((grpo(), lambda size: 1.0),), unused=frozenset({"sampler_entropy", "turn"})),
    Subject(pure(), reference=_pure(0.1, 1.0)),
    Subject(pure(temperature=2.0, verifiable=0.5), reference=_pure(2.0, 0.5)),
    Subject(pure_strict(), reference=_pure_strict),
    Subject(capo(), reference=_capo(2.0, 1.0), zero=(UNSCORED,)),
    Subject(
        capo(whole=1.0, process=0.0),
        reference=_capo(1.0, 0.0),
        zero=(UNSCORED, EQUAL_REWARDS),
        unused=frozenset({"wrong_step"}),
    ),
    Subject(tp_grpo(alpha=0.3), reference=_tp_grpo(0.3), zero=(UNSCORED,)),
    Subject(ma_rlhf(), reference=_macro_reference(lambda place, size: 1.0), zero=(UNSCORED,)),
    Subject(
        _macro_objective(macro_advantage_by_last(0.9, 0.5)),
        reference=_macro_reference(lambda place, size: float(place == size - 1), 0.9, 0.5),
    ),
    Subject(
        _macro_objective(macro_advantage_by_position(0.9, 1.0)),
        reference=_macro_reference(lambda place, size: 1 / (place + 1), 0.9, 1.0),
    ),
    Subject(brpo(_PRIOR, 8), reference=_brpo(_PRIOR), loss=_brpo_loss),
    Subject(brpo((0.25,) * 4, 8), reference=_brpo((0.25,) * 4)),
)
STAGES: tuple[StageSubject, ...] = (
    StageSubject(at_last_token(), linear=True),
    StageSubject(sum_to_come(), linear=True),
    StageSubject(subtract_token_mean_of_others(), linear=True),
    StageSubject(on_span("rationale", subtract_token_mean_of_others()), linear=True, span="rationale"),
    StageSubject(standardize_tokens_by_group()),
    StageSubject(weight_worst_steps(0.1)),
    StageSubject(worst_to_come()),
    StageSubject(subtract_step_share_of_others()),
    StageSubject(skip_step_ends()),
    StageSubject(charge_wrong_steps(1.0)),
    StageSubject(settle_unused_steps(1.0)),
    StageSubject(macro_advantage()),
    StageSubject(macro_advantage_by_last()),
    StageSubject(macro_advantage_by_position()),
    StageSubject(scale_by_turn_entropy(), linear=True),
    StageSubject(on_span("rationale", scale_by_turn_entropy()), linear=True, span="rationale"),
)
