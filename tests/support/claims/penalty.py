"""Claims of the penalty family: each loss a second time, row by row and token by token."""

import math

import torch

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.covariance import drop_covariance_band
from qredit.credit.fork import keep_forks, keep_otsu_forks
from qredit.credit.reward import reward
from qredit.credit.vote import majority_vote
from qredit.objectives import clip_cov, epo, kl_cov, llds, one_shot_entropy, rloo, siren, spine, spine_v1, tea_rl
from qredit.penalties.distillation import adaptive_kl, forward_kl, reverse_kl
from qredit.penalties.entropy import adaptive_entropy, entropy_bonus
from qredit.penalties.likelihood import keep_likelihood_of_responses, keep_likelihood_of_tokens
from qredit.penalties.reference import kl_to_reference_k1, kl_to_reference_k2
from qredit.testing.laws import StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, UNSCORED
from tests.support.batches import over_scored_rows

# --- what several losses are made of


def number(value):
    """A tensor's value as a constant."""
    return float(value.detach())


def tokens(batch):
    """(row, column) of every sampled token."""
    return [(int(row), int(column)) for row, column in batch.sampled.nonzero()]


def standardised(values, group):
    """(value - mean) / (std + 1e-4) over the rows of its group, std with n - 1; 0 where all are equal."""
    advantages = []
    for own, name in zip(values, group, strict=True):
        others = [float(value) for value, other in zip(values, group, strict=True) if other == name]
        mean = sum(others) / len(others)
        square = sum((value - mean) ** 2 for value in others) / max(len(others) - 1, 1)
        advantages.append((float(own) - mean) / (math.sqrt(square) + 1e-4) if len(set(others)) > 1 else 0.0)
    return advantages


def clipped(logp, batch, advantage, at, low, high):
    """-min(ratio · A, clip(ratio) · A) of one token."""
    ratio = torch.exp(logp[at] - batch.sampler_logp[at])
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def policy(logp, batch, low=0.2, high=0.2):
    """GRPO's clipped surrogate, the mean over all sampled tokens."""
    advantage = standardised(batch.reward, batch.group)
    at = tokens(batch)
    return sum(clipped(logp, batch, advantage[place[0]], place, low, high) for place in at) / len(at)


def k3(logp, batch, at):
    """exp(g) - g - 1 with g = log reference - log policy."""
    gap = batch.extra["logp@reference"][at] - logp[at]
    return torch.exp(gap) - gap - 1


def mean_k3(logp, batch):
    """k3, averaged over all sampled tokens."""
    return sum(k3(logp, batch, at) for at in tokens(batch)) / len(tokens(batch))


def covariances(batch):
    """(A - mean A)(log p - mean log p) of each sampled token."""
    advantage, at = standardised(batch.reward, batch.group), tokens(batch)
    mean_a = sum(advantage[place[0]] for place in at) / len(at)
    mean_l = sum(float(batch.logp[place]) for place in at) / len(at)
    return {place: (advantage[place[0]] - mean_a) * (float(batch.logp[place]) - mean_l) for place in at}


def quantile(values, level):
    """Linear interpolation between order statistics."""
    ordered = sorted(values)
    place = level * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (place - low)


def columns(batch, row):
    """Columns of the row's sampled tokens."""
    return batch.sampled[row].nonzero()[:, 0].tolist()


def forks_of(batch, row, share):
    """The ⌈share · n⌉ sampled tokens of highest entropy of a row."""
    own = columns(batch, row)
    return sorted(own, key=lambda column: -number(batch.entropy[row, column]))[: math.ceil(share * len(own) - 1e-9)]


# --- the losses


def _entropy_bonus(logp, batch):
    return rloo().loss(logp, batch) - 0.1 * batch.entropy[batch.sampled].mean()


def _k1(logp, batch):
    gap = batch.extra["logp@reference"] - logp
    return rloo().loss(logp, batch) - 0.1 * gap[batch.sampled].mean()


def _k2(logp, batch):
    gap = batch.extra["logp@reference"] - logp
    return rloo().loss(logp, batch) + 0.1 * (gap[batch.sampled] ** 2).mean() / 2


def _without_the_band(share, low, high):
    """GRPO's advantage, 0 on every token whose covariance lies in the band."""

    def credit(batch):
        advantage, found = standardised(batch.reward, batch.group), torch.zeros(batch.mask.shape)
        for place, covariance in covariances(batch).items():
            found[place] = 0.0 if low < covariance < high else advantage[place[0]]
        return found

    assert share == 1.0
    return credit


def _kl_cov(logp, batch, strength=0.7, share=0.15):
    advantage, varying = standardised(batch.reward, batch.group), covariances(batch)
    chosen = sorted(varying, key=varying.get, reverse=True)[: max(1, int(share * len(varying)))]
    change = logp - batch.sampler_logp
    total = sum(-torch.exp(change[place]) * advantage[place[0]] for place in varying)
    return (total + strength * sum(change[place].abs() for place in chosen)) / len(varying)


def _siren(logp, batch, anchor=0.3):
    advantage, entropy = rewards_less_mean(batch), batch.extra["nucleus_entropy@0.8"]
    total, selected = 0.0, 0.0
    for row in range(len(advantage)):
        own = columns(batch, row)
        total = total + sum(clipped(logp, batch, advantage[row], (row, column), 0.28, 0.28) for column in own)
        above = quantile([number(entropy[row, column]) for column in own], 0.8)
        peaks = [entropy[row, column] for column in own if number(entropy[row, column]) > above]
        selected = selected + (sum(peaks) / len(peaks) if peaks else 0.0)
    return total / (8 * len(advantage)) + 0.5 * (selected / len(advantage) - anchor) ** 2


def rewards_less_mean(batch):
    """r - mean of the group."""
    return [
        float(own) - float(batch.reward[batch.group == name].mean())
        for own, name in zip(batch.reward, batch.group, strict=True)
    ]


def _epo(logp, batch):
    """The first step has no history: the bonus alone."""
    return policy(logp, batch) - 0.05 * batch.entropy[batch.sampled].mean()


def _spine_v1(logp, batch, kl=0.3, above=0.2, below=0.4, share=0.5):
    cluster = batch.extra["cluster"].tolist()
    votes = [_agrees(cluster, batch.group.tolist(), row) for row in range(len(cluster))]
    advantage = standardised(votes, batch.group)
    total, price, counted = 0.0, 0.0, 0
    for row in range(len(cluster)):
        forks = forks_of(batch, row, share)
        drawn = [batch.entropy[row, column] for column in forks]
        low, high = (quantile([number(value) for value in drawn], level) for level in (0.1, 0.5))
        parts = [clipped(logp, batch, advantage[row], (row, column), 0.2, 0.2) for column in forks]
        total = total + sum(parts) / len(columns(batch, row))
        price = price + sum(below * torch.relu(low - value) + above * torch.relu(value - high) for value in drawn)
        price = price + kl * sum(k3(logp, batch, (row, column)) for column in forks)
        counted += len(forks)
    return total / len(cluster) + price / counted


def otsu_forks_of(batch, row, bins):
    """The sampled columns at or above Otsu's threshold: every cut of the histogram tried, the first best one kept."""
    value = {column: number(batch.entropy[row, column]) for column in columns(batch, row)}
    low, high = min(value.values()), max(value.values())
    if high == low:
        return list(value)
    centres = [low + (n + 0.5) * (high - low) / bins for n in range(bins)]
    held = [centres[min(int((v - low) / (high - low) * bins), bins - 1)] for v in value.values()]
    best, threshold = -1.0, high
    for centre in centres[:-1]:
        below, above = [v for v in held if v <= centre], [v for v in held if v > centre]
        if below and above:
            gap = sum(below) / len(below) - sum(above) / len(above)
            between = len(below) * len(above) * gap**2
            if between > best * (1 + 1e-12):
                best, threshold = between, centre
    return [column for column, v in value.items() if v >= threshold]


def spine_loss(logp, batch, kl=0.3, above=0.2, below=0.4, bins=10):
    """Policy and band over all sampled tokens, the divergence over the forks."""
    cluster = batch.extra["cluster"].tolist()
    votes = [_agrees(cluster, batch.group.tolist(), row) for row in range(len(cluster))]
    advantage = standardised(votes, batch.group)
    total, far, counted = 0.0, 0.0, 0
    for row in range(len(cluster)):
        forks = otsu_forks_of(batch, row, bins)
        drawn = [number(batch.entropy[row, column]) for column in forks]
        high = quantile(drawn, 0.5)
        low = max(0.0, high - 1.4826 * quantile([abs(value - high) for value in drawn], 0.5))
        for column in forks:
            entropy = batch.entropy[row, column]
            total = total + clipped(logp, batch, advantage[row], (row, column), 0.2, 0.2)
            total = total + below * torch.relu(low - entropy) + above * torch.relu(entropy - high)
            far = far + batch.extra["kl@reference"][row, column]
        counted += len(forks)
    return total / len(tokens(batch)) + kl * far / counted


def _agrees(cluster, group, row):
    """1 if the row's cluster has the most votes of its group, the smallest number among equals."""
    votes = [value for value, name in zip(cluster, group, strict=True) if name == group[row] and value >= 0]
    if not votes or cluster[row] < 0:
        return 0.0
    return float(cluster[row] == min(votes, key=lambda value: (-votes.count(value), value)))


def _tea_rl(logp, batch):
    varying, bonus = covariances(batch), 0.0
    for row in range(len(batch.group)):
        whole = sum(math.exp(varying[row, column]) for column in columns(batch, row))
        for column in columns(batch, row):
            weight = min(10 * math.exp(varying[row, column]) / whole, 2.5)
            bonus = bonus + weight * batch.entropy[row, column]
    return policy(logp, batch, 1.0, 1.0) - bonus / len(varying) + 0.1 * mean_k3(logp, batch)


def _lost(gate, searches=None):
    """(1/|Y|) Σ_i (1/|o_i|) Σ of relu(Δ) over what the gate lets through, times the factor of the answer."""

    def price(logp, batch, advantage):
        good = [row for row in range(len(advantage)) if advantage[row] >= 0]
        total = 0.0
        for row in good:
            own = columns(batch, row)
            change = {column: batch.sampler_logp[row, column] - logp[row, column] for column in own}
            numbers = {column: int(batch.turn[row, column]) for column in own}
            earned = 1.0 if searches is None else min((len(set(numbers.values())) - 1) / searches, 1.0)
            for column in own:
                if gate(column, change, numbers) > 0:
                    factor = earned if bool(batch.response[row, column]) else 1.0
                    total = total + factor * torch.relu(change[column]) / len(own)
        return total / len(good)

    return price


def by_turn(column, change, numbers):
    """What the token's turn lost."""
    return sum(number(value) for other, value in change.items() if numbers[other] == numbers[column])


def _llds(searches):
    def loss(logp, batch):
        advantage = standardised(batch.reward, batch.group)
        price = _lost(by_turn, searches)(logp, batch, advantage)
        return policy(logp, batch) + 0.2 * price + 0.1 * mean_k3(logp, batch)

    return loss


def _kept(gate):
    def loss(logp, batch):
        advantage = less_the_others(batch)
        return rloo().loss(logp, batch) + 0.4 * _lost(gate)(logp, batch, advantage)

    return loss


def less_the_others(batch):
    """r - mean of the other rewards of the group; r for a rollout alone."""
    found = []
    for row, name in enumerate(batch.group.tolist()):
        others = [float(r) for n, r in enumerate(batch.reward) if n != row and int(batch.group[n]) == name]
        found.append(float(batch.reward[row]) - (sum(others) / len(others) if others else 0.0))
    return found


def _one_shot(scale, kl):
    def loss(logp, batch):
        return (
            scale * policy(logp, batch)
            - 0.1 * batch.entropy[batch.sampled].mean()
            + (kl * mean_k3(logp, batch) if kl else 0.0)
        )

    return loss


def _reverse_kl(logp, batch):
    return rloo().loss(logp, batch) + 0.1 * batch.extra["kl@coach"][batch.sampled].mean()


def _forward_kl(logp, batch):
    return rloo().loss(logp, batch) + 0.1 * batch.extra["forward_kl@coach"][batch.sampled].mean()


def _adaptive_kl(logp, batch):
    """Before its first move every token is kept."""
    return rloo().loss(logp, batch) + 0.1 * batch.extra["tempered_kl@coach@0.5"][batch.sampled].mean()


BATTERY: tuple[Subject, ...] = (
    Subject(rloo() | entropy_bonus(0.1), loss=_entropy_bonus),
    Subject(rloo() | adaptive_entropy(start=0.1), loss=_entropy_bonus),
    Subject(Objective(on_span("sampled", reward()), penalties=(entropy_bonus(0.1),))),
    Subject(rloo() | kl_to_reference_k1(0.1), loss=_k1),
    Subject(rloo() | kl_to_reference_k2(0.1), loss=_k2),
    Subject(rloo() | reverse_kl(0.1, "coach"), loss=_reverse_kl),
    Subject(rloo() | forward_kl(0.1, "coach"), loss=_forward_kl),
    Subject(
        rloo() | adaptive_kl(0.1, "coach", warmup=0), loss=_adaptive_kl, unused=frozenset({"hellinger@coach", "seed"})
    ),
    Subject(
        clip_cov(share=1.0, low=0.02),
        reference=over_scored_rows(_without_the_band(1.0, 0.02, 5.0)),
        zero=(EQUAL_REWARDS, UNSCORED),
        unused=frozenset({"seed"}),
    ),
    Subject(clip_cov(share=0.1, low=0.02)),
    Subject(kl_cov(strength=0.7, share=0.15), loss=_kl_cov, zero=(EQUAL_REWARDS, UNSCORED)),
    Subject(siren(length=8, strength=0.5, anchor=0.3), loss=_siren, zero=(EQUAL_REWARDS, UNSCORED)),
    Subject(epo(0.8, 1.2, 0.1, 1.0, strength=0.05).at(0.5), loss=_epo, zero=(EQUAL_REWARDS, UNSCORED)),
    Subject(spine(kl=0.3, above=0.2, below=0.4, bins=10), loss=spine_loss),
    Subject(spine_v1(kl=0.3, above=0.2, below=0.4, share=0.5), loss=_spine_v1),
    Subject(tea_rl(most=2.5, kl=0.1), loss=_tea_rl, zero=(EQUAL_REWARDS, UNSCORED)),
    Subject(llds(kl=0.1), loss=_llds(None), zero=(EQUAL_REWARDS, UNSCORED)),
    Subject(llds(kl=0.1, searches=2), loss=_llds(2)),
    Subject(
        rloo() | keep_likelihood_of_tokens(0.4), loss=_kept(lambda column, change, numbers: number(change[column]))
    ),
    Subject(
        rloo() | keep_likelihood_of_responses(0.4),
        loss=_kept(lambda column, change, numbers: sum(number(value) for value in change.values())),
    ),
    Subject(one_shot_entropy(strength=0.1, kl=0.2), loss=_one_shot(1.0, 0.2), zero=(EQUAL_REWARDS, UNSCORED)),
    Subject(one_shot_entropy(strength=0.1, kl=0, policy=0.5), loss=_one_shot(0.5, 0)),
    Subject(Objective(on_span("sampled", majority_vote(leave_one_out=True)))),
)
STAGES: tuple[StageSubject, ...] = (
    StageSubject(drop_covariance_band()),
    StageSubject(on_span("sampled", drop_covariance_band(1.0, -10.0, 10.0)), span="sampled"),
    StageSubject(keep_forks(), linear=True),
    StageSubject(keep_otsu_forks(), linear=True),
)
