"""Claims of the group family."""

import math
from dataclasses import dataclass, replace

import torch

from qredit.core.chain import Credit, Scope, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.credit.counts import (
    climb,
    credit_pass_at,
    credit_truncated_log,
    find_right_rollouts,
    probability_all_among,
    shape_pass_at,
    weigh_right_and_wrong,
)
from qredit.credit.filters import (
    keep_most_varied,
    keep_spread_groups,
    leave_out_equal_groups,
    leave_out_zeros,
    zero_groups,
)
from qredit.credit.goal import arcsine, log_success, pass_at, success, success_std
from qredit.credit.group import (
    center_by_group,
    credit_lead,
    divide_by_group_mean,
    subtract_mean_of_others,
    whiten_over_tokens,
)
from qredit.credit.halves import center_by_halves
from qredit.credit.measure import batch_mean_reward, mean_entropy, sampled_length
from qredit.credit.reinforced import reinforce_drawn
from qredit.credit.reward import reward
from qredit.objectives import (
    aepo,
    canon,
    cispo,
    dr_grpo,
    empo,
    from_surrogate,
    grpo,
    grpo_passk,
    gspo,
    maxrl,
    maxrl_truncated,
    maxrl_uncentred,
    nsr,
    pass_at_k,
    pass_at_k_shaped,
    psr,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
    w_reinforce,
)
from qredit.testing.laws import Condition, StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, NO_SUCCESS, UNSCORED
from tests.support.batches import over_scored_rows

# --- advantages of a right and of a wrong rollout, k of m right, straight from the formulas


def _standardised(k, m):
    """(r - mean) / (std + 1e-4), std with n - 1."""
    std = math.sqrt(k * (m - k) / m / (m - 1))
    return (1 - k / m) / (std + 1e-4), -k / m / (std + 1e-4)


def _over_the_mean_uncentred(k, m):
    """r / mean."""
    return (m / k if k else 0.0), 0.0


def _truncated_log(order):
    """1 and minus the Maclaurin weights, in exact binomials."""

    def advantage(k, m):
        wrong = m - k
        terms = [math.comb(wrong - 1, j - 1) / math.comb(m - 1, j - 1) for j in range(2, min(order, wrong) + 1)]
        return 1.0, -sum(terms)

    return advantage


def _pass_at(tries):
    """The unbiased estimate, and its mean over the others in a group without this rollout."""

    def one(r, wrong, m):
        return tries * r * math.comb(wrong, tries - 1) / math.comb(m - 1, tries - 1) if m >= tries else 0.0

    def baseline(others):
        m = len(others)
        return sum(one(r, others.count(0), m) for r in others) / m if m >= tries else 0.0

    def advantage(k, m):
        rewards = [1] * k + [0] * (m - k)
        up = one(1, m - k, m) - baseline(rewards[1:]) if k else 0.0
        return up, -baseline(rewards[:-1]) if k < m else 0.0

    return advantage


def _pass_at_shaped(tries):
    """GRPO over all sets of `tries` rollouts, each rollout given the mean of the sets it stands in."""

    def advantage(k, m):
        if m < tries:
            return 0.0, 0.0
        wrong = m - k
        passed = 1 - math.comb(wrong, tries) / math.comb(m, tries)
        std = math.sqrt(passed * (1 - passed))
        with_wrong = 1 - math.comb(wrong - 1, tries - 1) / math.comb(m - 1, tries - 1) if wrong else 1.0
        return (1 - passed) / (std + 1e-6), (with_wrong - passed) / (std + 1e-6)

    return advantage


def _lead(k, m):
    """1 / (std + 1e-6) for the only right rollout; nothing in any other group."""
    return (1 / (math.sqrt(1 / m) + 1e-6) if k == 1 and m > 1 else 0.0), 0.0


def _climbed(slope):
    """ω/p̂ and -ω/(1-p̂) with ω = p̂(1-p̂)F'(p̂); 0 in groups of equal rewards."""

    def advantage(k, m):
        if k in (0, m):
            return 0.0, 0.0
        p = k / m
        weight = p * (1 - p) * slope(p)
        return weight / p, -weight / (1 - p)

    return advantage


# --- coefficients written row by row


def _rows(batch, of_group):
    """Per group, `of_group(rows) → {row: number}` over its scored rows, spread over sampled tokens."""
    credit = torch.zeros(batch.mask.shape)
    for number in batch.group.unique():
        rows = [i for i in range(len(batch.group)) if batch.group[i] == number]
        scored = [i for i in rows if batch.reward is None or not math.isnan(batch.reward[i])]
        for row, value in of_group(scored).items():
            credit[row, batch.sampled[row]] = value
    return credit


def _less_the_others(batch):
    """r_i - mean of the other scored rewards of the group, on sampled tokens."""

    def of_group(rows):
        others = {i: [float(batch.reward[j]) for j in rows if j != i] for i in rows}
        return {i: float(batch.reward[i]) - (sum(o) / len(o) if o else 0.0) for i, o in others.items()}

    return _rows(batch, of_group)


def _scaled_leads(batch):
    """The best reward less the second best, over the std (n-1) + 1e-6, on the row that has the best."""

    def of_group(rows):
        rewards = [float(batch.reward[i]) for i in rows]
        mean = sum(rewards) / len(rewards)
        std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / max(len(rewards) - 1, 1))
        order = sorted(rows, key=lambda i: float(batch.reward[i]))
        lead = float(batch.reward[order[-1]] - batch.reward[order[-2]]) if len(rows) > 1 else 0.0
        return {i: lead / (std + 1e-6) if i == order[-1] else 0.0 for i in rows}

    return _rows(batch, of_group)


def _whitened(values, lengths):
    """(a - mean) / √(variance + 1e-8), each row counted once for each of its tokens, variance with n-1."""
    tokens = [values[i] for i in values for _ in range(lengths[i])]
    mean = sum(tokens) / len(tokens)
    variance = sum((a - mean) ** 2 for a in tokens) / (len(tokens) - 1)
    return {i: (a - mean) / math.sqrt(variance + 1e-8) for i, a in values.items()}


def _whitened_rewards(centred):
    """The rewards, or the rewards less their group's mean, whitened over tokens."""

    def credit(batch):
        rewards, means = {}, {}
        for i, r in enumerate(batch.reward.tolist()):
            own = [float(batch.reward[j]) for j in range(len(batch.group)) if batch.group[j] == batch.group[i]]
            rewards[i], means[i] = r, sum(own) / len(own) if centred else 0.0
        lengths = batch.sampled.sum(1).tolist()
        white = _whitened({i: r - means[i] for i, r in rewards.items()}, lengths)
        return torch.tensor([white[i] for i in rewards])[:, None] * batch.sampled

    return credit


def _halved(metric, between, low=1.0, high=1.0):
    """CANON row by row; `metric(batch, row)`, `between(batch)` → μ."""

    def credit(batch):
        mu = between(batch)

        def of_group(rows):
            ordered = sorted(rows, key=lambda i: metric(batch, i))
            bottom, top = ordered[: len(rows) // 2], ordered[len(rows) // 2 :]
            found = {}
            for i in rows:
                r = float(batch.reward[i])
                own, other = (bottom, top) if i in bottom else (top, bottom)
                ours, theirs = (low, high) if i in bottom else (high, low)
                if len(rows) == 1:
                    found[i] = mu * ours * r + (1 - mu) * r
                    continue
                inter = ours * r - sum(theirs * float(batch.reward[j]) for j in other) / len(other)
                intra = r - sum(float(batch.reward[j]) for j in own) / len(own)
                found[i] = mu * inter + (1 - mu) * intra
            return found

        return _rows(batch, of_group)

    return credit


def _entropy(batch, row):
    return float(batch.extra["sampler_entropy"][row, batch.sampled[row]].mean())


def _agreement(batch):
    """EMPO: standardised share of the group in one's cluster."""

    def of_group(rows):
        clusters = [int(batch.extra["cluster"][i]) for i in rows]
        distinct = len({c for c in clusters if c >= 0}) + clusters.count(-1)
        share = [0.0 if c < 0 or distinct == len(rows) else clusters.count(c) / len(rows) for c in clusters]
        mean = sum(share) / len(share)
        variance = sum((s - mean) ** 2 for s in share) / max(len(share) - 1, 1)
        if len(set(share)) == 1:
            return dict.fromkeys(rows, 0.0)
        return {i: (s - mean) / (math.sqrt(variance) + 1e-4) for i, s in zip(rows, share, strict=True)}

    return _rows(batch, of_group)


# --- losses written token by token


def _token_losses(logp, batch, advantage, low, high):
    """-min(ρ A, clip(ρ) A) of every sampled token, with the row it is of."""
    for row, value in enumerate(advantage):
        for t in range(logp.shape[1]):
            if bool(batch.sampled[row, t]):
                ratio = torch.exp(logp[row, t] - batch.sampler_logp[row, t])
                yield row, -torch.minimum(ratio * value, ratio.clamp(1 - low, 1 + high) * value)


def _mean_loss(weigh, left_out=None):
    """The mean over the tokens of the rows that count; `left_out` is the reward of the rows that do not."""

    def loss(logp, batch):
        rewards = batch.reward.tolist()
        terms = [
            term
            for row, term in _token_losses(logp, batch, [weigh(r) for r in rewards], 0.2, 0.2)
            if rewards[row] != left_out
        ]
        return torch.stack(terms).mean()

    return loss


def _gspo_loss(logp, batch):
    """Mean over rows of -min(s A, clip(s) A), s differentiated as it stands."""
    credit = grpo().credit(batch)
    advantage = credit.gather(1, credit.abs().argmax(1, keepdim=True))[:, 0]
    terms = []
    for row in range(len(batch.group)):
        on = batch.sampled[row]
        ratio = torch.exp((logp[row, on] - batch.sampler_logp[row, on]).mean())
        terms.append(-torch.minimum(ratio * advantage[row], ratio.clamp(0.95, 1.05) * advantage[row]))
    return torch.stack(terms).mean()


def _cispo_loss(logp, batch):
    """Mean over tokens of -min(sg ρ, cap) A log p."""
    advantage = grpo().credit(batch)
    capped = torch.exp(logp - torch.where(batch.sampled, batch.sampler_logp, logp)).detach().clamp(max=1.05)
    return -(capped * advantage * logp)[batch.sampled].sum() / batch.sampled.sum()


def _only_mixed_groups(logp, batch):
    """RLOO's advantage times log p over the tokens of groups that are not all of one reward."""
    mixed = [len({float(r) for r in batch.reward[batch.group == number]}) > 1 for number in batch.group]
    on = batch.sampled & torch.tensor(mixed)[:, None]
    ratio = torch.exp(logp - torch.where(batch.sampled, batch.sampler_logp, logp)).detach().clamp(max=2.0)
    return -(ratio * (_less_the_others(batch) * logp))[on].sum() / on.sum()


def aepo_credit(batch):
    """(r - mean) / (std + 1e-6) over the scored rollouts of the group, 1 on reinforced ones, whether scored or not."""
    out = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row in range(len(batch.group)):
        own = [float(r) for r, g in zip(batch.reward, batch.group, strict=True) if g == batch.group[row] and r == r]
        value = 0.0
        if not batch.reward[row].isnan() and len(set(own)) > 1:
            mean = sum(own) / len(own)
            std = math.sqrt(sum((r - mean) ** 2 for r in own) / (len(own) - 1))
            value = (float(batch.reward[row]) - mean) / (std + 1e-6)
        out[row] = (1.0 if batch.extra["reinforced"][row] else value) * batch.sampled[row]
    return out


# --- situations


def _second(batch):
    return batch.groups.index == 1


def _alternating(batch):
    return torch.arange(len(batch.group)).double() % 2


def _one_right(batch, right):
    return torch.where(right, 1.0, 0.0).to(batch.reward)


ALL_RIGHT = Condition(
    "a group that is all right",
    lambda batch: replace(batch, reward=torch.where(_second(batch), 1.0, _alternating(batch))),
    _second,
)
WRONG = Condition(
    "a wrong rollout", lambda batch: replace(batch, reward=_alternating(batch)), lambda b: _alternating(b) == 0
)
RIGHT = Condition(
    "a right rollout", lambda batch: replace(batch, reward=_alternating(batch)), lambda b: _alternating(b) == 1
)
EQUAL_AND_NONE_REINFORCED = Condition(
    "equal rewards, and no rollout that was drawn in another way",
    lambda batch: replace(
        batch,
        reward=torch.where(_second(batch), 0.1, _alternating(batch)),
        extra={"reinforced": torch.zeros(len(batch.group), dtype=torch.bool)},
    ),
    _second,
)
STEP_OF_ONE_ANSWER = Condition(
    "groups that agree",
    lambda batch: replace(batch, extra={"cluster": torch.where(_second(batch), 4, torch.arange(len(batch.group)) % 2)}),
    _second,
)
NO_TWO_AGREE = Condition(
    "a group in which no two agree",
    lambda batch: replace(
        batch,
        extra={
            "cluster": torch.where(_second(batch), torch.arange(len(batch.group)), torch.arange(len(batch.group)) % 2)
        },
    ),
    _second,
)
SHARED_BEST = Condition(
    "the best reward of a group is shared",
    lambda batch: replace(batch, reward=_one_right(batch, batch.groups.slot < torch.where(_second(batch), 2, 1))),
    _second,
)
BEHIND = Condition(
    "rollouts behind the best",
    lambda batch: replace(batch, reward=_one_right(batch, batch.groups.slot < 1)),
    lambda batch: batch.groups.slot > 0,
)
REWARDED, COUNTED = (EQUAL_REWARDS, UNSCORED), (ALL_RIGHT, NO_SUCCESS, UNSCORED)


@dataclass(frozen=True)
class _pass_at_uncentred(Credit):
    """The first term of credit_pass_at alone."""

    k: int
    scope = Scope.GROUP

    def __call__(self, coefficient, batch):
        right, keep = find_right_rollouts(coefficient, self)
        size = batch.groups.count(keep)
        chance = probability_all_among(size - batch.groups.count(right), size - 1, self.k - 1)
        return coefficient.with_row(self.k * right.double() * chance)


@dataclass(frozen=True)
class _best_of_group(Credit):
    """The best reward of the group, on each of its rollouts."""

    scope = Scope.GROUP

    def __call__(self, coefficient, batch):
        value, keep = coefficient.per_rollout(self)
        best = batch.groups.dense(torch.where(keep, value, -torch.inf), -torch.inf).amax(1, keepdim=True)
        return coefficient.with_row(torch.where(keep, batch.groups.rows(best), 0.0))


def _uncentred(k):
    return Objective(on_span("sampled", reward() | _pass_at_uncentred(k)))


def _per_token(tokens):
    return 1 / tokens


BATTERY: tuple[Subject, ...] = (
    Subject(rloo(), reference=_less_the_others),
    Subject(gspo(), advantage=_standardised, loss_scale=_per_token, zero=REWARDED),
    Subject(gspo(0.05, 0.05), loss=_gspo_loss),
    Subject(cispo(), advantage=_standardised, loss_scale=_per_token, zero=REWARDED),
    Subject(cispo(ratio_max=1.05), loss=_cispo_loss),
    Subject(reinforce_pp(), reference=over_scored_rows(_whitened_rewards(centred=False)), zero=(UNSCORED,)),
    Subject(reinforce_pp_baseline(), reference=over_scored_rows(_whitened_rewards(centred=True)), zero=(UNSCORED,)),
    Subject(maxrl_uncentred(), advantage=_over_the_mean_uncentred, zero=(NO_SUCCESS, WRONG, UNSCORED)),
    *(
        Subject(maxrl_truncated(order), advantage=_truncated_log(order), binary=True, zero=(UNSCORED,))
        for order in (1, 2, 3, 5)
    ),
    *(Subject(pass_at_k(k), advantage=_pass_at(k), plain=_uncentred(k), binary=True, zero=COUNTED) for k in (1, 2)),
    Subject(pass_at_k(3), advantage=_pass_at(3), plain=_uncentred(3), binary=True, zero=(NO_SUCCESS, UNSCORED)),
    Subject(pass_at_k(1), equals=((rloo(), lambda m: 1.0),), binary=True),
    *(
        Subject(pass_at_k_shaped(k), advantage=_pass_at_shaped(k), loss_scale=_per_token, binary=True, zero=COUNTED)
        for k in (1, 2, 3)
    ),
    Subject(
        from_surrogate(success()),
        advantage=_climbed(lambda p: 1.0),
        equals=((rloo(), lambda m: (m - 1) / m), (replace(dr_grpo(8), source=rloo().source), lambda m: (m - 1) / m)),
        binary=True,
        zero=COUNTED,
    ),
    Subject(
        from_surrogate(arcsine()),
        advantage=_climbed(lambda p: 1 / math.sqrt(p * (1 - p))),
        equals=((grpo(epsilon_std=1e-30), lambda m: math.sqrt(m / max(m - 1, 1))),),
        binary=True,
        zero=COUNTED,
    ),
    Subject(
        from_surrogate(log_success()),
        advantage=_climbed(lambda p: 1 / p),
        equals=((maxrl(epsilon=0.0), lambda m: 1.0),),
        binary=True,
        zero=COUNTED,
    ),
    Subject(from_surrogate(pass_at(3)), advantage=_climbed(lambda p: 3 * (1 - p) ** 2), binary=True, zero=COUNTED),
    Subject(
        from_surrogate(0.5 * arcsine() + success_std()),
        advantage=_climbed(lambda p: (1 - p) / math.sqrt(p * (1 - p))),
        binary=True,
        zero=COUNTED,
    ),
    Subject(grpo_passk(), advantage=_lead, loss_scale=_per_token, zero=(SHARED_BEST, BEHIND)),
    Subject(grpo_passk(), reference=_scaled_leads),
    Subject(
        Objective(on_span("sampled", reward() | credit_lead())),
        plain=Objective(on_span("sampled", reward() | _best_of_group())),
    ),
    Subject(psr(), loss=_mean_loss(lambda r: r, left_out=0.0), binary=True, zero=(WRONG, UNSCORED)),
    Subject(nsr(), loss=_mean_loss(lambda r: r - 1, left_out=1.0), binary=True, zero=(RIGHT, UNSCORED)),
    Subject(
        w_reinforce(0.3),
        loss=_mean_loss(lambda r: 0.3 if r else -1.0),
        advantage=lambda k, m: (0.3, -1.0),
        loss_scale=_per_token,
        binary=True,
        zero=(UNSCORED,),
    ),
    Subject(canon(8, mean_entropy()), reference=_halved(_entropy, lambda batch: 1.0), zero=REWARDED),
    Subject(canon(8, mean_entropy(), between=0.3), reference=_halved(_entropy, lambda batch: 0.3), zero=REWARDED),
    Subject(
        canon(8, mean_entropy(), between=0.6, low=0.5, high=0.9),
        reference=_halved(_entropy, lambda batch: 0.6, 0.5, 0.9),
        zero=(UNSCORED,),
    ),
    Subject(
        canon(8, mean_entropy(), between=batch_mean_reward()),
        reference=_halved(_entropy, lambda batch: float(batch.reward.nanmean())),
        zero=REWARDED,
    ),
    Subject(aepo(), reference=aepo_credit, zero=(EQUAL_AND_NONE_REINFORCED,)),
    Subject(empo(), reference=_agreement, zero=(STEP_OF_ONE_ANSWER, NO_TWO_AGREE)),
    Subject(
        Objective(
            on_span("sampled", reward() | center_by_group() | leave_out_equal_groups()), reduction=mean_per_token()
        ),
        zero=REWARDED,
    ),
    Subject(
        Objective(
            on_span("sampled", reward() | leave_out_equal_groups() | subtract_mean_of_others()),
            reduction=mean_per_token(),
        ),
        loss=_only_mixed_groups,
    ),
    Subject(Objective(on_span("sampled", sampled_length())), reference=lambda b: b.sampled.sum(1)[:, None] * b.sampled),
    Subject(
        Objective(on_span("sampled", mean_entropy())),
        reference=lambda b: torch.tensor([_entropy(b, i) for i in range(len(b.group))])[:, None] * b.sampled,
    ),
    Subject(
        Objective(on_span("sampled", batch_mean_reward())),
        reference=over_scored_rows(lambda batch: batch.reward.mean() * batch.sampled),
    ),
)
STAGES: tuple[StageSubject, ...] = (
    StageSubject(divide_by_group_mean()),
    StageSubject(credit_lead()),
    StageSubject(whiten_over_tokens()),
    StageSubject(reinforce_drawn()),
    StageSubject(climb(success())),
    StageSubject(credit_pass_at(2)),
    StageSubject(shape_pass_at(2)),
    StageSubject(credit_truncated_log(2)),
    StageSubject(weigh_right_and_wrong(1.0, -1.0)),
    StageSubject(leave_out_zeros(), linear=True),
    StageSubject(leave_out_equal_groups(), linear=True),
    StageSubject(keep_spread_groups(0.5), linear=True),
    StageSubject(keep_most_varied(2), linear=True),
    StageSubject(zero_groups(alone=True)),
    StageSubject(center_by_halves(sampled_length()), linear=True),
)
