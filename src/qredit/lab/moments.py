"""The exact mean and second moment of an objective's gradient under M i.i.d. rollouts of an enumerable policy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qredit.batch import RolloutBatch
from qredit.lab.policy import TabularPolicy
from qredit.objective import Objective


@dataclass(frozen=True, eq=False)
class Pools:
    """Every multiset of M trajectories that an estimator can be given, with its probability.

    Attributes:
        members: (N, M) trajectory numbers; z·Y + y, where y is the sampled answer (0 when none is sampled).
        probability: (N,) sums to 1.
    """

    members: Int[Tensor, "N M"]
    probability: Float[Tensor, " N"]


def pools(policy: TabularPolicy, rollouts: int, with_response: bool) -> Pools:
    """All multisets of `rollouts` i.i.d. trajectories: rationales alone, or rationale and sampled answer together."""
    prior = policy.prior
    if with_response:
        trajectory = (prior.log()[:, None] + policy.answer_logp).exp().flatten()
        numbers = list(range(len(trajectory)))
    else:
        trajectory = prior
        numbers = [z * policy.answers for z in range(policy.rationales)]
    members = list(combinations_with_replacement(range(len(trajectory)), rollouts))
    index = torch.tensor(members)
    arrangements = torch.tensor([_arrangements(multiset) for multiset in members], dtype=torch.float64)
    probability = arrangements * trajectory[index].prod(1)
    return Pools(members=torch.tensor(numbers)[index], probability=probability)


def gradients(
    objective: Objective, policy: TabularPolicy, members: Int[Tensor, "N M"], with_response: bool, seed: int = 0
) -> Float[Tensor, "N D"]:
    """∇_θ of the objective's loss on each pool, each pool being one whole optimiser step.

    Goes through the objective's own credit, surrogate and reduction; only the gradients of the log-probabilities come
    from the policy's table. Every row has the same number of tokens, so the pools' denominators are equal.
    """
    batch = pool_batch(policy, members, with_response, seed)
    tokens, answers = policy.scores
    flat = members.flatten()
    z, y = flat // policy.answers, flat % policy.answers
    logp_tokens, logp_answers = policy.token_logps(policy.theta)
    logp = torch.cat([logp_tokens[z], logp_answers[z, y][:, None]], 1).requires_grad_()
    numerator = objective.numerators(logp, batch, objective.evaluate(batch))["policy"]
    slope = torch.autograd.grad(numerator, logp)[0]
    denominator = objective.denominators(batch)["policy"] / len(members)
    score = torch.cat([tokens[z], answers[z, y][:, None]], 1)
    per_row = torch.einsum("bt,btd->bd", slope, score)
    return per_row.view(*members.shape, -1).sum(1) / denominator


def pool_batch(policy: TabularPolicy, members: Int[Tensor, "N M"], with_response: bool, seed: int = 0) -> RolloutBatch:
    """Each pool as one group: columns are the rationale, the forced closing symbol and the answer."""
    flat = members.flatten()
    z, y = flat // policy.answers, flat % policy.answers
    rows, width = len(flat), policy.length + 2
    column = torch.arange(width).expand(rows, width)
    rationale, last = column < policy.length, column == width - 1
    group = torch.arange(len(members)).repeat_interleave(members.shape[1])
    batch = RolloutBatch(
        mask=torch.ones(rows, width, dtype=torch.bool),
        rationale=rationale,
        close=column == policy.length,
        answer=torch.zeros_like(last) if with_response else last,
        response=last if with_response else None,
        sampled=(rationale | last) if with_response else rationale,
        group=group,
        seed=seed,
    )
    if with_response:
        return replace(batch, reward=(y == 0).double())
    return replace(batch, answer_logp=policy.answer_logp[z, 0])


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,) of an estimator and the trace of its covariance."""

    mean: Float[Tensor, " D"]
    variance: float


def moments(values: Float[Tensor, "N D"], probability: Float[Tensor, " N"]) -> Moments:
    """Exact mean and total variance of a random vector with finitely many values."""
    mean = probability @ values
    return Moments(mean, float(probability @ (values - mean).square().sum(1)))


def exact_moments(objective: Objective, policy: TabularPolicy, rollouts: int, with_response: bool) -> Moments:
    """Mean and variance of a deterministic objective's gradient over all pools of `rollouts` trajectories."""
    every = pools(policy, rollouts, with_response)
    return moments(gradients(objective, policy, every.members, with_response), every.probability)


def _arrangements(multiset: tuple[int, ...]) -> float:
    """In how many orders the multiset can be drawn."""
    counts = [multiset.count(value) for value in set(multiset)]
    return math.factorial(len(multiset)) / math.prod(map(math.factorial, counts))


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways of writing `total` as an ordered sum of `parts` numbers ≥ 0."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield first, *rest
