"""The mean and second moment of an objective's gradient under M i.i.d. rollouts of an enumerable policy.

Exact, by listing every multiset of M trajectories with its probability, where there are few enough; else estimated from
seeded draws, with standard errors. The objective's own credit, surrogate and reduction are run in both cases; only the
gradients of the log-probabilities come from the policy. With a `sampler` trajectories are drawn from that policy, as
off-policy rollouts are; gradients and likelihoods are still those of the policy at hand. With a `Proposal` the last k
rows of each group are drawn from its policy instead.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, named_stages
from qredit.core.field_names import HINTED_LOGP
from qredit.core.objective import Objective
from qredit.core.right_answers import join_answers
from qredit.credit.likelihood import resample_by_likelihood
from qredit.testing.policy import EnumerablePolicy
from qredit.utils.errors import QreditError

MAX_GROUPS = 300_000
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class EnumeratedGroups:
    """Groups of M trajectories that an estimator can be given, with their probabilities.

    Attributes:
        members: (N, M) trajectory numbers; z·Y + y, where y is the sampled answer (0 when none is sampled).
        probability: (N,) sums to 1.
    """

    members: Int[Tensor, "N M"]
    probability: Float[Tensor, " N"]


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where the last `count` rollouts of each group are drawn from.

    Attributes:
        policy: the same strings with other probabilities, as a policy has behind another prompt.
        count: k, at most the size of a group.
    """

    policy: EnumerablePolicy
    count: int


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,) of an estimator and the trace of its covariance."""

    mean: Float[Tensor, " D"]
    variance: float


def compute_moments(values: Float[Tensor, "N D"], probability: Float[Tensor, " N"]) -> Moments:
    """Exact mean and total variance of a random vector with finitely many values."""
    mean = probability @ values
    return Moments(mean, float(probability @ (values - mean).square().sum(1)))


@dataclass(frozen=True, eq=False)
class SampledMoments:
    """Moments estimated from N independent groups.

    Attributes:
        mean: (D,), and `mean_error` (D,), its standard error.
        variance: the trace of the covariance, and `variance_error`, its standard error.
    """

    mean: Float[Tensor, " D"]
    mean_error: Float[Tensor, " D"]
    variance: float
    variance_error: float


def needs_sampled_answer(objective: Objective) -> bool:
    """Whether an objective's rows end in a sampled answer, for its reward, or in the gold one, for its likelihood.

    Raises:
        QreditError: it reads both; two tails of one rationale are not enumerated here.
    """
    if {"reward", "answer_logp"} <= objective.needs:
        raise QreditError(f"{objective} needs both a reward and a likelihood; the lab enumerates one tail at a time")
    return "answer_logp" not in objective.needs


def exact_moments(
    objective: Objective,
    policy: EnumerablePolicy,
    rollouts: int,
    sampler: EnumerablePolicy | None = None,
    proposal: Proposal | None = None,
) -> Moments:
    """Exact mean and variance of the gradient, over all groups of `rollouts` trajectories and all of its own draws.

    Args:
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        policy: whose every trajectory can be listed.
        rollouts: M, the size of a group.
        sampler: whom the rows are drawn from that no proposal gives; None is the policy itself.
        proposal: whom the last rows of each group are drawn from.

    Raises:
        QreditError: more than `MAX_GROUPS` multisets; use `sampled_moments`.
    """
    drawn_from, response = policy if sampler is None else sampler, needs_sampled_answer(objective)
    if proposal is None:
        every = enumerate_groups(drawn_from, rollouts, response)
    else:
        every = enumerate_mixed_groups(drawn_from, proposal, rollouts, response)
    mean, square = integrate_over_draws(objective, policy, every.members, sampler, proposal)
    total = every.probability @ mean
    return Moments(total, float(every.probability @ square - total.square().sum()))


def sampled_moments(
    objective: Objective, policy: EnumerablePolicy, rollouts: int, groups: int, seed: int
) -> SampledMoments:
    """Mean and variance of the gradient from `groups` independent groups and their own draws; a function of `seed`.

    Args:
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        policy: whose every trajectory can be listed.
        rollouts: M, the size of a group.
        groups: how many are drawn.
        seed: all draws are a function of it.
    """
    probability = enumerate_trajectories(policy, needs_sampled_answer(objective))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(probability.probability, groups * rollouts, replacement=True, generator=generator)
    members = probability.members[drawn, 0].view(groups, rollouts)
    values = group_gradients(objective, policy, members, seed=seed)
    mean = values.mean(0)
    deviation = (values - mean).square().sum(1)
    return SampledMoments(
        mean=mean,
        mean_error=values.std(0) / math.sqrt(groups),
        variance=float(deviation.sum() / (groups - 1)),
        variance_error=float(deviation.std() / math.sqrt(groups)),
    )


def enumerate_trajectories(policy: EnumerablePolicy, with_response: bool) -> EnumeratedGroups:
    """Every single trajectory: a rationale alone, or a rationale and a sampled answer."""
    if with_response:
        joint = (policy.prior.log()[:, None] + policy.answer_logp).exp().flatten()
        return EnumeratedGroups(torch.arange(len(joint))[:, None], joint)
    return EnumeratedGroups(torch.arange(policy.rationales)[:, None] * policy.answers, policy.prior)


def enumerate_groups(policy: EnumerablePolicy, rollouts: int, with_response: bool) -> EnumeratedGroups:
    """All multisets of `rollouts` i.i.d. trajectories: rationales alone, or rationale and sampled answer together.

    Args:
        policy: whose every trajectory can be listed.
        rollouts: M, the size of a group.
        with_response: whether rows end in a sampled answer instead of the reference answer.
    """
    single = enumerate_trajectories(policy, with_response)
    kinds = len(single.members)
    count = math.comb(kinds + rollouts - 1, rollouts)
    if count > MAX_GROUPS:
        raise QreditError(
            f"{rollouts} rollouts of {kinds} trajectories are {count} multisets, more than {MAX_GROUPS}; "
            "use sampled_moments, fewer rollouts or a smaller policy"
        )
    members = list(combinations_with_replacement(range(kinds), rollouts))
    index = torch.tensor(members)
    arrangements = torch.tensor([_count_orders(multiset) for multiset in members], dtype=torch.float64)
    return EnumeratedGroups(single.members[index, 0], arrangements * single.probability[index].prod(1))


def enumerate_mixed_groups(
    policy: EnumerablePolicy, proposal: Proposal, rollouts: int, with_response: bool
) -> EnumeratedGroups:
    """All groups whose first rows are i.i.d. from the policy and whose last rows are from the proposal.

    Args:
        policy: whose every trajectory can be listed.
        proposal: draws the last rationales of a group, the policy shown the gold answer.
        rollouts: M, the size of a group.
        with_response: whether rows end in a sampled answer instead of the reference answer.

    Raises:
        QreditError: more than `MAX_GROUPS` of them.
    """
    plain = enumerate_groups(policy, rollouts - proposal.count, with_response)
    hinted = enumerate_groups(proposal.policy, proposal.count, with_response)
    count = len(plain.members) * len(hinted.members)
    if count > MAX_GROUPS:
        raise QreditError(f"these are {count} groups of both sources, more than {MAX_GROUPS}; use a smaller policy")
    first = torch.arange(len(plain.members)).repeat_interleave(len(hinted.members))
    last = torch.arange(len(hinted.members)).repeat(len(plain.members))
    return EnumeratedGroups(
        torch.cat([plain.members[first], hinted.members[last]], 1),
        plain.probability[first] * hinted.probability[last],
    )


def group_gradients(
    objective: Objective,
    policy: EnumerablePolicy,
    members: Int[Tensor, "N M"],
    seed: int = 0,
    sampler: EnumerablePolicy | None = None,
    proposal: Proposal | None = None,
) -> Float[Tensor, "N D"]:
    """∇_θ of the objective's loss on each pool, each pool being one whole optimiser step.

    Every row has the same number of tokens, so the pools' denominators are equal.

    Args:
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        policy: whose every trajectory can be listed.
        members: (N, M) numbers of the trajectories in each group.
        seed: all draws are a function of it.
        sampler: the policy that sampled; None is the policy itself.
        proposal: draws the last rationales of a group; None is none of them.
    """
    with_response = needs_sampled_answer(objective)
    batch = make_group_batch(policy, members, with_response, seed, sampler, proposal)
    z, said = _split_members(policy, members)[0], _tail(policy, members, with_response)
    logp = _row_logps(policy, z, said).requires_grad_()
    numerator = objective.numerators(logp, batch, objective.evaluate(batch))["policy"]
    slope = torch.autograd.grad(numerator, logp)[0]
    return _sum_per_group(policy, slope, said, members) / (objective.denominators(batch)["policy"] / len(members))


def integrate_over_draws(
    objective: Objective,
    policy: EnumerablePolicy,
    members: Int[Tensor, "N M"],
    sampler: EnumerablePolicy | None = None,
    proposal: Proposal | None = None,
) -> tuple[Float[Tensor, "N D"], Float[Tensor, " N"]]:
    """Mean of each pool's gradient over the objective's own draws, and mean of its squared norm, integrated exactly.

    Each way of distributing the K draws of `resample_by_likelihood` over the M rows takes the stage's place in turn,
    with its multinomial probability; an objective without such a stage is evaluated once.

    Args:
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        policy: whose every trajectory can be listed.
        members: (N, M) numbers of the trajectories in each group.
        sampler: the policy that sampled; None is the policy itself.
        proposal: draws the last rationales of a group; None is none of them.
    """
    found = [stage for _, stage in named_stages(objective.source) if isinstance(stage, resample_by_likelihood)]
    if not found:
        values = group_gradients(objective, policy, members, sampler=sampler, proposal=proposal)
        return values, values.square().sum(1)
    size = members.shape[1]
    draws = found[0].resamples or size
    weights = _log_weights(policy, sampler, proposal, size)[members // policy.answers].softmax(1)
    mean, square = torch.zeros(len(members), len(policy.theta), dtype=torch.float64), torch.zeros(len(members))
    square = square.double()
    for counts in compositions(draws, size):
        given = _replace_stage(objective, resample_by_likelihood, _given_counts(counts, draws))
        value = group_gradients(given, policy, members, sampler=sampler, proposal=proposal)
        chance = _multinomial(counts, weights)
        mean += chance[:, None] * value
        square += chance * value.square().sum(1)
    return mean, square


@dataclass(frozen=True)
class _given_counts(Credit):
    """`resample_by_likelihood` with its draws known: row m of every group was drawn `counts[m]` times of `draws`."""

    counts: tuple[int, ...]
    draws: int

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        counts = torch.tensor(self.counts, dtype=value.dtype)[batch.groups.slot]
        return coefficient.with_row(value * counts * (len(self.counts) / self.draws))


def _replace_stage(value: T, kind: type, by: Credit) -> T:
    """A tree of frozen dataclasses with every stage of a kind replaced."""
    if isinstance(value, kind):
        return by  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(_replace_stage(item, kind, by) for item in value)  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields: dict[str, Any] = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **{name: _replace_stage(v, kind, by) for name, v in fields.items()})
    return value


def _log_weights(
    policy: EnumerablePolicy, sampler: EnumerablePolicy | None, proposal: Proposal | None, size: int
) -> Float[Tensor, " Z"]:
    """log w of every rationale; drawn from elsewhere, plus the log of p(z|x) over its density there."""
    log_w = policy.log_w
    if sampler is None and proposal is None:
        return log_w
    density = (policy if sampler is None else sampler).prior
    if proposal is not None:
        density = ((size - proposal.count) * density + proposal.count * proposal.policy.prior) / size
    return log_w + policy.prior.log() - density.log()


def make_group_batch(
    policy: EnumerablePolicy,
    members: Int[Tensor, "N M"],
    with_response: bool,
    seed: int = 0,
    sampler: EnumerablePolicy | None = None,
    proposal: Proposal | None = None,
) -> RolloutBatch:
    """Each pool as one group: columns are the rationale, the forced closing symbol, the answer or all right ones.

    Args:
        policy: whose every trajectory can be listed.
        members: (N, M) numbers of the trajectories in each group.
        with_response: whether rows end in a sampled answer instead of the reference answer.
        seed: all draws are a function of it.
        sampler: the policy that sampled; None is the policy itself.
        proposal: draws the last rationales of a group; None is none of them.
    """
    z, _ = _split_members(policy, members)
    said = _tail(policy, members, with_response)
    rows, width = len(z), policy.length + 1 + said.shape[1]
    column = torch.arange(width).expand(rows, width)
    thought, last = column < policy.length, column > policy.length
    observed = torch.isin(column, torch.tensor(policy.observed, dtype=torch.long))
    rationale = thought & ~observed
    closing = torch.full((rows, 1), policy.symbols)
    batch = RolloutBatch(
        mask=torch.ones(rows, width, dtype=torch.bool),
        ids=torch.cat([policy.strings[z], closing, closing + 1 + said], 1),
        rationale=rationale,
        close=column == policy.length,
        observation=observed if policy.observed else None,
        answer=torch.zeros_like(last) if with_response else last,
        response=last if with_response else None,
        sampled=(rationale | last) if with_response else rationale,
        group=torch.arange(len(members)).repeat_interleave(members.shape[1]),
        logp=_row_logps(policy, z, said),
        sampler_logp=None if sampler is None else _row_logps(sampler, z, said),
        seed=seed,
    )
    if proposal is not None:
        drawn = (torch.arange(members.shape[1]) >= members.shape[1] - proposal.count).repeat(len(members))
        batch = replace(batch, proposal=drawn, extra={HINTED_LOGP: _row_logps(proposal.policy, z, said)})
    if with_response:
        return replace(batch, reward=(said[:, 0] < policy.right).double())
    alias = None if policy.right == 1 else torch.where(last, column - policy.length - 1, 0)
    assert batch.logp is not None
    log_w, share = join_answers(batch.logp, batch.answer, alias)
    return replace(batch, answer_logp=log_w, alias=alias, answer_share=share)


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways of writing `total` as an ordered sum of `parts` numbers ≥ 0."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield first, *rest


def _split_members(policy: EnumerablePolicy, members: Tensor) -> tuple[Tensor, Tensor]:
    """Rationale and answer number of every row."""
    flat = members.flatten()
    return flat // policy.answers, flat % policy.answers


def _tail(policy: EnumerablePolicy, members: Tensor, with_response: bool) -> Int[Tensor, "B A"]:
    """The answers that stand in each row: the sampled one, or all right ones."""
    sampled = _split_members(policy, members)[1]
    return sampled[:, None] if with_response else torch.arange(policy.right).expand(len(sampled), -1)


def _row_logps(policy: EnumerablePolicy, z: Tensor, said: Int[Tensor, "B A"]) -> Float[Tensor, "B T"]:
    tokens, answers = policy.logps
    return torch.cat([tokens[z], answers[z[:, None], said]], 1)


def _sum_per_group(
    policy: EnumerablePolicy, slope: Float[Tensor, "B T"], said: Int[Tensor, "B A"], members: Tensor
) -> Float[Tensor, "N D"]:
    """Σ over a pool's rows and tokens of slope · ∇log p: the slopes are gathered per table entry before the product."""
    tokens, answers = policy.scores
    z, before = _split_members(policy, members)[0], policy.length + 1
    pool = torch.arange(len(members)).repeat_interleave(members.shape[1])
    per_token = torch.zeros(len(members), *tokens.shape[:2], dtype=slope.dtype)
    per_answer = torch.zeros(len(members), *answers.shape[:2], dtype=slope.dtype)
    per_token.index_put_((pool, z), slope[:, :before], accumulate=True)
    per_answer.index_put_((pool[:, None], z[:, None], said), slope[:, before:], accumulate=True)
    return per_token.flatten(1) @ tokens.flatten(0, 1) + per_answer.flatten(1) @ answers.flatten(0, 1)


def _count_orders(multiset: tuple[int, ...]) -> float:
    """In how many orders the multiset can be drawn."""
    counts = [multiset.count(value) for value in set(multiset)]
    return math.factorial(len(multiset)) / math.prod(map(math.factorial, counts))


def _multinomial(counts: tuple[int, ...], weights: Float[Tensor, "N M"]) -> Float[Tensor, " N"]:
    """Probability that the draws fall as `counts` over rows with these weights."""
    ways = math.factorial(sum(counts)) / math.prod(map(math.factorial, counts))
    return ways * (weights ** torch.tensor(counts)).prod(1)
