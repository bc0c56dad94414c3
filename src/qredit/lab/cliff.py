"""The policy cliff: between tied optima the smallest change of a reward moves all mass; entropy makes a slope of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.lab.finding import Curve, Finding, FindingPanel, make_claim, make_curve
from qredit.lab.minimize import minimize_over_distributions

THEOREM = "of two tied optima the better one by any δ > 0 takes all; with τ · entropy it takes 1 / (1 + e^{-δ/τ})"
TOLERANCE, SLOPE_TOLERANCE = 1e-6, 0.01
WORSE = 0.5
"""Reward of a third answer, beside 1 + δ/2 and 1 - δ/2."""


@dataclass(frozen=True)
class CliffRow:
    """The first answer's share of what the two tied answers get, as found and in theory.

    `given_up` is the reward that the policy found leaves on the table.
    """

    tau: float
    delta: float
    share: float
    theorem: float
    given_up: float


def measure(
    changes: Sequence[float] = (-0.1, -0.01, -0.001, 0.001, 0.01, 0.1),
    temperatures: Sequence[float] = (0.02, 0.1, 0.5),
) -> Finding:
    """Maximise E[r] + τ · H over policies on three answers with rewards 1 + δ/2, 1 - δ/2 and 1/2, by L-BFGS on logits.

    Args:
        changes: values of δ, none of them 0.
        temperatures: values of τ above 0; 0 is measured besides.

    Source: arXiv 2507.20150, the reward-policy map at non-unique optima and under entropy regularisation.
    """
    sharp = [_row(delta, 0.0) for delta in changes]
    smooth = [_row(delta, tau) for tau in temperatures for delta in changes]
    tied = [_row(0.0, tau) for tau in temperatures]
    slopes = [4 * tau * _slope(tau) for tau in temperatures]
    return Finding(
        theorem=THEOREM,
        claims=(
            make_claim("share at τ = 0 is 1 for δ > 0 and 0 for δ < 0", *_compare(sharp), TOLERANCE),
            make_claim("share at τ > 0 is 1 / (1 + e^{-δ/τ})", *_compare(smooth), TOLERANCE),
            make_claim("4τ times its slope at δ = 0 is 1", slopes, 1.0, SLOPE_TOLERANCE),
            make_claim(
                "reward given up at the tie is 1/2 · e^{-1/(2τ)} / (2 + e^{-1/(2τ)})",
                [row.given_up for row in tied],
                [price(tau) for tau in temperatures],
                TOLERANCE,
            ),
        ),
        tables={"shares": [*sharp, *smooth, *tied]},
        panels=(_panel(changes, temperatures),),
    )


def share_of_first(delta: float, tau: float) -> float:
    """The theorem: what the first of two tied answers gets of what both get, when it is better by delta."""
    if tau == 0:
        return float(delta > 0)
    return float(torch.tensor(delta / tau, dtype=torch.float64).sigmoid())


def price(tau: float) -> float:
    """The theorem: the reward that entropy costs where both are equal, by the mass of the worse third answer."""
    mass = float(torch.tensor((WORSE - 1) / tau, dtype=torch.float64).exp())
    return (1 - WORSE) * mass / (2 + mass)


def find_best_policy(reward: Float[Tensor, " K"], tau: float) -> Float[Tensor, " K"]:
    """argmax over distributions of E[r] + tau · H, by descent; knows nothing of its closed form.

    Args:
        reward: (K,) of each answer.
        tau: weight of the entropy (nats).
    """
    return minimize_over_distributions(partial(_loss, reward=reward, tau=tau), len(reward))


def _loss(policy: Float[Tensor, " K"], reward: Float[Tensor, " K"], tau: float) -> Float[Tensor, ""]:
    gained = policy @ reward
    return -gained if tau == 0 else -gained - tau * torch.special.entr(policy).sum()


def _row(delta: float, tau: float) -> CliffRow:
    reward = torch.tensor([1 + delta / 2, 1 - delta / 2, WORSE], dtype=torch.float64)
    policy = find_best_policy(reward, tau)
    return CliffRow(
        tau=tau,
        delta=delta,
        share=float(policy[0] / policy[:2].sum()),
        theorem=share_of_first(delta, tau),
        given_up=float(reward.max() - policy @ reward),
    )


def _slope(tau: float) -> float:
    """Of the share in δ at 0, between two policies found on either side."""
    step = tau / 100
    return (_row(step, tau).share - _row(-step, tau).share) / (2 * step)


def _compare(rows: Sequence[CliffRow]) -> tuple[list[float], list[float]]:
    return [row.share for row in rows], [row.theorem for row in rows]


def _panel(changes: Sequence[float], temperatures: Sequence[float]) -> FindingPanel:
    widest = max(map(abs, changes))
    fine = torch.linspace(-widest, widest, 80, dtype=torch.float64).tolist()  # an even number: none of them is 0
    curves: list[Curve] = []
    for place, tau in enumerate((0.0, *temperatures)):
        label, hue = f"τ = {tau:g}", place / len(temperatures)
        curves.append(make_curve(label, hue, "theorem", fine, [share_of_first(d, tau) for d in fine], line=True))
        curves.append(make_curve(label, hue, "found", changes, [_row(d, tau).share for d in changes]))
    ticks = (-widest, -widest / 2, 0.0, widest / 2, widest)
    return FindingPanel("two tied optima", "δ, difference of rewards", "share of the first", tuple(curves), "", ticks)
