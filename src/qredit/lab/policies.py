"""Policies with a given success probability in the two regimes: likelihood graded over rationales, or sparse."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.testing.policy import TabularPolicy
from qredit.utils.errors import QreditError

PRIOR = (0.5, 0.3, 0.2)
GRADED_MULTIPLES = (0.5, 1.0, 2.25)
"""Likelihoods of the graded policy as multiples of P; their mean under PRIOR is 1."""
HIT_LIKELIHOOD = 0.9
"""Likelihood of the gold answer after the one rationale that leads to it, in the sparse policy."""
MISS_LOG_LIKELIHOOD = -700.0


def make_policy(prior: Float[Tensor, " Z"], log_likelihood: Float[Tensor, " Z"]) -> TabularPolicy:
    """The policy of one-symbol rationales and two answers that has these p(z|x) and log p(y*|x,z)."""
    wrong = torch.log(-torch.expm1(log_likelihood))
    answers = torch.stack([log_likelihood, wrong], 1).flatten()
    closing = torch.zeros_like(prior)
    return TabularPolicy(torch.cat([prior.log(), closing, answers]), symbols=len(prior), length=1, answers=2)


def make_graded_policy(p: float) -> TabularPolicy:
    """Success probability p with every rationale carrying some of it: w_z = p·(1/2, 1, 9/4), prior (0.5, 0.3, 0.2).

    Raises:
        QreditError: p is so large that a likelihood would reach 1.
    """
    _check("graded", p, 1 / max(GRADED_MULTIPLES))
    prior, shape = (torch.tensor(values, dtype=torch.float64) for values in (PRIOR, GRADED_MULTIPLES))
    return make_policy(prior, shape.log() + math.log(p))


def make_sparse_policy(p: float) -> TabularPolicy:
    """Success probability p on one rare rationale: w = 0.9 with prior p/0.9, and e^-700 on the other.

    Raises:
        QreditError: p is so large that the rare rationale would be certain.
    """
    _check("sparse", p, HIT_LIKELIHOOD)
    prior = torch.tensor([p / HIT_LIKELIHOOD, 1 - p / HIT_LIKELIHOOD], dtype=torch.float64)
    return make_policy(prior, torch.tensor([math.log(HIT_LIKELIHOOD), MISS_LOG_LIKELIHOOD], dtype=torch.float64))


def _check(regime: str, p: float, below: float) -> None:
    if not 0 < p < below:
        raise QreditError(f"the {regime} policy needs a success probability between 0 and {below:.3g}, got {p!r}")
