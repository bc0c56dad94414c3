"""Claims of the reward family: each reward once more in plain Python, then a group statistic written plainly."""

import math
import statistics
from dataclasses import replace

import torch

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.difficulty import add_difficulty_rewards, success_as_sign
from qredit.credit.group import subtract_mean_of_others
from qredit.credit.length import (
    charge_length_above,
    grade_by_length,
    mix_in_length,
    subtract_length,
    subtract_overlong,
)
from qredit.credit.narrow_group import leave_out_narrow_groups
from qredit.credit.phase_entropy import reward_by_phase_entropy
from qredit.credit.reward import punish_degenerate, reward
from qredit.credit.teacher_ratio import subtract_centred_log_ratio
from qredit.objectives import adactrl, dapo_overlong, leash, nover, pear, rlpr, rmt, t1
from qredit.testing.laws import Condition, StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, NO_SUCCESS, UNSCORED
from tests.support.claims.step import group_of, tokens_of


def _each_row(batch, made, scored, span, combine):
    """Coefficients (B, T): `combine`(own, numbers of the group's scored rows, own place among them) on a span."""
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row in range(len(batch.group)):
        if scored(row):
            members = [other for other in group_of(batch, row) if scored(other)]
            credit[row, span[row]] = combine([made(other) for other in members], members.index(row))
    return credit


def _standardised(numbers, place, epsilon=1e-4):
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    equal = all(number == numbers[0] for number in numbers)
    return 0.0 if equal else (numbers[place] - statistics.fmean(numbers)) / (spread + epsilon)


def _less_the_others(numbers, place):
    others = numbers[:place] + numbers[place + 1 :]
    return numbers[place] - (statistics.fmean(others) if others else 0.0)


def _of_rewards(make, combine):
    """The reference of an objective whose reward is `make`(batch, row)."""

    def reference(batch):
        scored = lambda row: not batch.reward[row].isnan()  # noqa: E731
        return _each_row(batch, lambda row: make(batch, row), scored, batch.sampled, combine)

    return reference


def _overlong(batch, row, length, buffer, strength):
    tokens = len(tokens_of(batch, row))
    start = length - buffer
    punishment = 0.0 if tokens <= start else 1.0 if tokens > length else (tokens - start) / buffer
    return float(batch.reward[row]) - strength * punishment


def _graded(batch, row, length, right, wrong):
    short, long = right if batch.reward[row] > 0 else wrong
    through = min(len(tokens_of(batch, row)) / length, 1.0)
    return long + 0.5 * (short - long) * (1 + math.cos(math.pi * through))


def _adaptive(batch, row):
    members = [other for other in group_of(batch, row) if not batch.reward[other].isnan()]
    easy = sum(float(batch.reward[other]) > 0 for other in members) / len(members) > 0.625
    tag = int(batch.extra["difficulty_tag"][row])
    made = 1.0 if batch.reward[row] > 0 else -1.0
    if tag == 0:
        return made - 0.5
    if tag != (1 if easy else 2):
        return made
    through = len(tokens_of(batch, row)) / max(max(len(tokens_of(batch, other)) for other in members), 1)
    wave = math.cos(math.pi * through)
    return made + 0.5 + 0.5 * (1 + (wave if easy else -wave)) / 2


def _phase(batch, row, right, wrong, weight):
    if not batch.reward[row] > 0:
        return wrong
    thinking = [c for c in tokens_of(batch, row) if batch.rationale[row, c] and not batch.close[row, c]]
    answering = [c for c in tokens_of(batch, row) if batch.response[row, c]]
    means = [
        sum(float(batch.extra["sampler_entropy"][row, c]) for c in part) / max(len(part), 1)
        for part in (thinking, answering)
    ]
    return min(1.0, right - max(0.0, means[0] - weight * means[1]))


def rlpr_credit(batch):
    """0.9 max(0, mean probability less base) + 0.1 r, standardised over the scored rollouts; epsilon 1e-6."""

    def made(row):
        own_rows = (batch.rollout == batch.rollout[row]).nonzero()[:, 0].tolist()
        gold = next(n for n in own_rows if batch.answer[n].any())
        own = [math.exp(float(batch.logp[gold, c])) for c in range(batch.mask.shape[1]) if batch.answer[gold, c]]
        gain = max(0.0, sum(own) / len(own) - float(batch.extra["base_probability"][row]))
        return 0.9 * gain + 0.1 * float(batch.reward[row])

    scored = lambda row: not batch.answer[row].any() and not batch.reward[row].isnan()  # noqa: E731
    standardised = lambda numbers, place: _standardised(numbers, place, 1e-6)  # noqa: E731
    return _each_row(batch, made, scored, batch.sampled, standardised)


def _rlpr_loss(logp, batch):
    """The clipped surrogate, a mean over the sampled tokens of the rows that end in a sampled answer."""
    credit, rows = rlpr_credit(batch), ~batch.has_answer[:, None]
    ratio = (logp - batch.sampler_logp).exp()
    surrogate = torch.minimum(ratio * credit, ratio.clamp(0.8, 1.27) * credit)
    return -surrogate[batch.sampled & rows].sum() / (batch.sampled & rows).sum()


def _surprise(batch, row):
    """Nats per answer token under the reference, over 1 + log10 of the rationale's length."""
    (gold,) = [
        other
        for other in range(len(batch.group))
        if batch.rollout[other] == batch.rollout[row] and batch.answer[other].any()
    ]
    told = batch.extra["logp@reference"][gold][batch.answer[gold]]
    return -float(told.mean()) / (1 + math.log10(int(batch.rationale[gold].sum())))


def nover_credit(batch, efficiency=1.0):
    """Form, rank and efficiency of each rollout, standardised over the scored rollouts; epsilon 1e-4."""
    scored = lambda row: not batch.answer[row].any() and not batch.reward[row].isnan()  # noqa: E731

    def made(row):
        if batch.reward[row] != 1:
            return 0.0
        ranked = [other for other in group_of(batch, row) if scored(other) and batch.reward[other] == 1]
        surprise = {other: _surprise(batch, other) for other in ranked}
        length = {other: int(batch.rationale[other].sum()) for other in ranked}
        place = sorted(ranked, key=surprise.__getitem__).index(row)
        beaten = [j for j in ranked if length[j] > length[row] and surprise[j] > surprise[row]]
        fast = len(beaten) / (len(ranked) - 1) if len(ranked) > 1 else 0.0
        return 1.0 + (len(ranked) - place) / len(ranked) + efficiency * fast

    return _each_row(batch, made, scored, batch.sampled, _standardised)


def _nover_loss(logp, batch):
    """The clipped surrogate over rows that end in a sampled answer, and 0.1 of k3 over tokens that count once."""
    credit, rows = nover_credit(batch), ~batch.has_answer[:, None]
    ratio = (logp - batch.sampler_logp).exp()
    surrogate = torch.minimum(ratio * credit, ratio.clamp(0.9, 1.2) * credit)
    gap = (batch.extra["logp@reference"] - logp)[batch.drawn_once]
    divergence = (gap.exp() - gap - 1).mean()
    return -surrogate[batch.sampled & rows].sum() / (batch.sampled & rows).sum() + 0.1 * divergence


def _shaped(stage):
    return Objective(on_span("sampled", reward() | stage | subtract_mean_of_others()))


_GRADES = ((1.0, 0.5), (-1.0, -0.5))


def t1_credit(batch, kl=0.1):
    """RLOO on rewards of which -1 stands for degenerate rollouts, less the log-ratio beyond its mean over the rows."""
    rows = range(len(batch.group))
    earned = [-1.0 if batch.extra["degenerate"][row] else float(batch.reward[row]) for row in rows]
    counted = [row for row in rows if not math.isnan(earned[row])]
    drift = [
        sum(float(batch.logp[row, c] - batch.extra["logp@ema"][row, c]) for c in tokens_of(batch, row)) for row in rows
    ]
    mean = sum(drift[row] for row in counted) / len(counted)
    out = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row in counted:
        others = [earned[one] for one in counted if one != row and batch.group[one] == batch.group[row]]
        advantage = earned[row] - (sum(others) / len(others) if others else 0.0)
        out[row] = (advantage - kl * (drift[row] - mean)) * batch.sampled[row]
    return out


def _without_degenerate(condition):
    """A situation of rewards in which no rollout is degenerate."""

    def arrange(batch):
        clean = torch.zeros(len(batch.group), dtype=torch.bool)
        return replace(condition.arrange(batch), extra={**batch.extra, "degenerate": clean})

    return Condition(f"{condition.name}, none degenerate", arrange, condition.rows)


def _over_target(batch, row, target, price):
    """The reward less the price of what the rollout is longer than the target."""
    return float(batch.reward[row]) - price * max(0.0, len(tokens_of(batch, row)) / target - 1)


def _within_budget(batch, row, weight, peak, budget):
    """The reward, mixed with a triangle over the length: straight up to the budget, straight down to twice of it."""
    tokens = len(tokens_of(batch, row))
    triangle = tokens / budget if tokens <= budget else max(0.0, 2 - tokens / budget)
    return (1 - weight) * float(batch.reward[row]) + weight * peak * triangle


BATTERY: tuple[Subject, ...] = (
    Subject(
        rmt(weight=0.3, peak=1.5, budget=3.7),
        reference=_of_rewards(lambda batch, row: _within_budget(batch, row, 0.3, 1.5, 3), _standardised),
        zero=(UNSCORED,),
    ),
    Subject(
        leash(target=4, rate=0.05, most=1.0, start=0.3),
        reference=_of_rewards(lambda batch, row: _over_target(batch, row, 4, 0.3), _standardised),
        zero=(UNSCORED,),
    ),
    Subject(t1(entropy=0.001, kl=0.1), reference=t1_credit, zero=(_without_degenerate(UNSCORED),)),
    Subject(
        Objective(on_span("sampled", reward() | punish_degenerate() | subtract_mean_of_others())),
        zero=(_without_degenerate(EQUAL_REWARDS),),
    ),
    Subject(
        dapo_overlong(length=9, buffer=4),
        reference=_of_rewards(lambda batch, row: _overlong(batch, row, 9, 4, 1.0), _standardised),
        zero=(UNSCORED,),
    ),
    Subject(
        _shaped(subtract_overlong(length=7, buffer=7, strength=0.3)),
        reference=_of_rewards(lambda batch, row: _overlong(batch, row, 7, 7, 0.3), _less_the_others),
    ),
    Subject(
        _shaped(grade_by_length(length=8)),
        reference=_of_rewards(lambda batch, row: _graded(batch, row, 8, *_GRADES), _less_the_others),
        zero=(UNSCORED,),
    ),
    Subject(
        _shaped(subtract_length(0.2, length=8)),
        reference=_of_rewards(
            lambda batch, row: float(batch.reward[row]) - 0.2 * len(tokens_of(batch, row)) / 8, _less_the_others
        ),
    ),
    Subject(adactrl(), reference=_of_rewards(_adaptive, _standardised), zero=(UNSCORED,)),
    Subject(
        pear(right=0.9, wrong=0.1),
        reference=_of_rewards(lambda batch, row: _phase(batch, row, 0.9, 0.1, 1.0), _standardised),
        zero=(UNSCORED, NO_SUCCESS),
    ),
    Subject(
        pear(right=1.0, wrong=0.0, answer_weight=-1.0),
        reference=_of_rewards(lambda batch, row: _phase(batch, row, 1.0, 0.0, -1.0), _standardised),
    ),
    Subject(nover(), reference=nover_credit, loss=_nover_loss, zero=(UNSCORED,), unused=frozenset({"answer_logp"})),
    Subject(
        nover(beta=0.0, efficiency=0.5),
        reference=lambda batch: nover_credit(batch, 0.5),
        unused=frozenset({"answer_logp"}),
    ),
    Subject(rlpr(), reference=rlpr_credit, loss=_rlpr_loss, zero=(UNSCORED,), unused=frozenset({"answer_logp"})),
)
STAGES: tuple[StageSubject, ...] = (
    StageSubject(leave_out_narrow_groups()),
    StageSubject(punish_degenerate()),
    StageSubject(charge_length_above(4, 0.1, 1.0, 0.2)),
    StageSubject(mix_in_length(0.3, 1.5, 4.0)),
    StageSubject(subtract_centred_log_ratio(0.1, "ema")),
    StageSubject(subtract_overlong(8, 4)),
    StageSubject(subtract_length(0.1, 8)),
    StageSubject(grade_by_length(8)),
    StageSubject(success_as_sign()),
    StageSubject(add_difficulty_rewards()),
    StageSubject(reward_by_phase_entropy(1.0, 0.0)),
)
