"""Best-of-N: its exact distribution with ties, its cost in KL, and its reward beside the best policy of that KL."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.lab.finding import Claim, Curve, Finding, FindingPanel, make_claim, make_curve
from qredit.testing.policy import TabularPolicy

THEOREM = "KL(best of N ‖ p) ≤ log N - (N-1)/N, and no policy of that KL has more reward than the tilted one, p·e^{r/β}"
EXACT_TOLERANCE, REWARD_TOLERANCE, RATIO_TOLERANCE = 1e-12, 1e-9, 1e-6
_STRONGEST = 1e4  # 1/β; there a reward that is 0.01 lower has weight e^-100
_HALVINGS = 200


@dataclass(frozen=True)
class Outcomes:
    """All that a policy can say to one prompt.

    Attributes:
        name: what tables and plots call it.
        p: (Y,) the probability of each, float64.
        reward: (Y,) of each.
    """

    name: str
    p: Float[Tensor, " Y"]
    reward: Float[Tensor, " Y"]


@dataclass(frozen=True)
class BestOf:
    """Best-of-N and the tilted policy of the same KL: KL in nats, rewards, the share of the gain that is reached."""

    outcomes: str
    n: int
    kl: float
    bound: float
    reward: float
    tilted: float
    share: float


def measure(sizes: Sequence[int] = (2, 4, 8, 16, 64), seeds: int = 3, many: int = 100_000) -> Finding:
    """Best-of-N of policies whose every outcome can be listed, with a reward of few values and one without ties.

    Args:
        sizes: values of N.
        seeds: policies.
        many: outcomes of the uniform policy whose KL is compared with the bound.

    Source: for the KL and its bound arXiv 2401.01879; the tilted policy is the optimum of E r - β KL.
    """
    graded = [_make_outcomes(seed, 3) for seed in range(seeds)]
    untied = [_make_outcomes(seed, None) for seed in range(seeds)]
    right = [_make_outcomes(seed, 2) for seed in range(seeds)]
    rows = [_compare(one, n) for one in (graded[0], untied[0]) for n in sizes]
    return Finding(
        theorem=THEOREM,
        claims=tuple(_claims(graded, untied, right, sizes, many)),
        tables={"best of N": rows},
        panels=(_draw_kl(rows), _draw_reward(rows)),
    )


def best_of(outcomes: Outcomes, n: int) -> Float[Tensor, " Y"]:
    """The probability of each outcome to be the best of n draws, a tie shared: p(y)/p(ℓ) · (F(ℓ)^n - F(<ℓ)^n).

    ℓ are the outcomes with the reward of y, F(ℓ) is the probability of a reward up to it, F(<ℓ) of one below. Among
    tied draws the one that is taken is distributed as p is among ℓ, whichever of them it is.

    Args:
        outcomes: of a policy.
        n: draws.
    """
    level, of = outcomes.reward.unique(return_inverse=True)
    mass = torch.zeros(len(level), dtype=torch.float64).index_add(0, of, outcomes.p)
    upto = mass.cumsum(0).clamp(max=1.0)
    below = torch.cat([torch.zeros(1, dtype=torch.float64), upto[:-1]])
    return (outcomes.p / mass[of]) * (upto**n - below**n)[of]


def enumerate_best_of(outcomes: Outcomes, n: int) -> Float[Tensor, " Y"]:
    """The same by listing all Y^n draws.

    Args:
        outcomes: of a policy.
        n: draws.
    """
    p, reward = outcomes.p.tolist(), outcomes.reward.tolist()
    found = [0.0] * len(p)
    for drawn in product(range(len(p)), repeat=n):
        most = max(reward[y] for y in drawn)
        best = [y for y in drawn if reward[y] == most]
        chance = math.prod(p[y] for y in drawn)
        for y in best:
            found[y] += chance / len(best)
    return torch.tensor(found, dtype=torch.float64)


def divergence(one: Float[Tensor, " Y"], p: Float[Tensor, " Y"]) -> float:
    """KL(one ‖ p) in nats."""
    kept = one > 0
    return float((one[kept] * (one[kept] / p[kept]).log()).sum())


def bound(n: int) -> float:
    """log N - (N-1)/N, nats: the KL of best-of-N where no two outcomes tie and none has probability above 0."""
    return math.log(n) - (n - 1) / n


def tilt(outcomes: Outcomes, strength: float) -> Float[Tensor, " Y"]:
    """p·e^{strength·r}, normalised: of all policies with its KL to p the one with most reward.

    Args:
        outcomes: of a policy.
        strength: 1/β, 0 or more.
    """
    return (outcomes.p.log() + strength * outcomes.reward).softmax(0)


def tilt_to(outcomes: Outcomes, kl: float) -> Float[Tensor, " Y"]:
    """The tilted policy with this KL to p, by halving its strength.

    Args:
        outcomes: of a policy.
        kl: nats, below -log of the probability of the highest reward.
    """
    low, high = 0.0, _STRONGEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(tilt(outcomes, middle), outcomes.p) < kl else (low, middle)
    return tilt(outcomes, (low + high) / 2)


def _make_outcomes(seed: int, values: int | None) -> Outcomes:
    """What a random tabular policy says, rationale and answer, with a random reward from 0 to 1.

    Args:
        seed: of both.
        values: how many different rewards there are; None is one for each outcome.
    """
    policy = TabularPolicy.random(seed=seed)
    p = (policy.prior[:, None] * policy.answer_logp.exp()).flatten()
    drawn = torch.rand(len(p), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    if values is None:
        return Outcomes("no ties", p, drawn)
    return Outcomes(f"{values} rewards", p, (drawn * values).floor() / (values - 1))


def _compare(outcomes: Outcomes, n: int) -> BestOf:
    found = best_of(outcomes, n)
    kl = divergence(found, outcomes.p)
    mean, own = float(outcomes.p @ outcomes.reward), float(found @ outcomes.reward)
    most = float(tilt_to(outcomes, kl) @ outcomes.reward)
    return BestOf(outcomes.name, n, kl, bound(n), own, most, (own - mean) / (most - mean))


def _claims(
    graded: Sequence[Outcomes],
    untied: Sequence[Outcomes],
    right: Sequence[Outcomes],
    sizes: Sequence[int],
    many: int,
) -> Iterator[Claim]:
    """Each part of the theorem.

    Args:
        graded: with few rewards.
        untied: with a reward for each outcome.
        right: with two.
        sizes: values of N.
        many: outcomes of a policy that is all but continuous.
    """
    every = (*graded, *untied, *right)
    apart = [float((best_of(one, n) - enumerate_best_of(one, n)).abs().max()) for one in every for n in (2, 3)]
    yield make_claim("the distribution with ties is that of all listed draws", apart, 0.0, EXACT_TOLERANCE)
    rows = [_compare(one, n) for one in every for n in sizes]
    yield make_claim(
        f"KL above the bound in {len(rows)} cases is 0", [max(0.0, r.kl - r.bound) for r in rows], 0.0, EXACT_TOLERANCE
    )
    fine = torch.arange(many, dtype=torch.float64)
    spread = Outcomes("many", torch.full_like(fine, 1 / many), fine)
    reached = [divergence(best_of(spread, n), spread.p) for n in sizes]
    yield make_claim(
        f"KL over {many} equally likely outcomes is the bound",
        reached,
        [bound(n) for n in sizes],
        RATIO_TOLERANCE,
        relative=True,
    )
    yield make_claim(
        "reward above the tilted policy of the same KL is 0",
        [max(0.0, row.reward - row.tilted) for row in rows],
        0.0,
        REWARD_TOLERANCE,
    )
    same = [
        float((found - tilt_to(one, divergence(found, one.p))).abs().max())
        for one in right
        for n in sizes
        if (found := best_of(one, n)) is not None
    ]
    yield make_claim("with two rewards best-of-N is a tilted policy", same, 0.0, REWARD_TOLERANCE)


def _draw_kl(rows: Sequence[BestOf]) -> FindingPanel:
    names = list(dict.fromkeys(row.outcomes for row in rows))
    curves: list[Curve] = []
    for place, name in enumerate(names):
        own = [row for row in rows if row.outcomes == name]
        hue = place / max(len(names) - 1, 1)
        curves.append(make_curve(name, hue, "best of N", [r.n for r in own], [r.kl for r in own]))
    last = [row for row in rows if row.outcomes == names[-1]]
    curves.append(make_curve("log N - (N-1)/N", 0.5, "bound", [r.n for r in last], [r.bound for r in last], line=True))
    ticks = tuple(float(row.n) for row in last)
    return FindingPanel("what choosing costs", "N", "KL to the policy (nats)", tuple(curves), log="x", x_ticks=ticks)


def _draw_reward(rows: Sequence[BestOf]) -> FindingPanel:
    names = list(dict.fromkeys(row.outcomes for row in rows))
    curves: list[Curve] = []
    for place, name in enumerate(names):
        own = [row for row in rows if row.outcomes == name]
        hue, kl = place / max(len(names) - 1, 1), [row.kl for row in own]
        curves.append(make_curve(name, hue, "best of N", kl, [row.reward for row in own]))
        curves.append(make_curve(name, hue, "tilted policy", kl, [row.tilted for row in own], line=True))
    return FindingPanel("what it buys", "KL to the policy (nats)", "mean reward", tuple(curves), log="")
