"""The bias and variance of off-policy GARL by enumeration, for every way to weigh rollouts of older weights.

    python experiments/off_policy.py     the table in docs/theory.md; about a minute on one core

Policies are tables over rationales of three symbols of two; the sampler's logits differ from the policy's by normal
noise of a given size. Bias is the distance between the exact mean over the sampler's rollouts and that over the
policy's own, as a share of the latter: at q > 0 both have the estimator's own bias for finite M, which is not counted
here. Variance is a multiple of that on policy. Medians over the seeds, with the range of the bias.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, per_span
from qredit.core.importance import RationaleRatio, sequence_mask, sequence_truncate, token_mask, token_truncate
from qredit.core.objective import Objective
from qredit.core.surrogate import log_likelihood, score_function
from qredit.credit.likelihood import amplified_likelihood, subtract_likelihood_baseline
from qredit.objectives import garl
from qredit.testing.moments import exact_moments
from qredit.testing.policy import TabularPolicy

SEEDS, DISTANCES, COMMITMENTS, ROLLOUTS = range(5), (0.1, 0.3, 1.0), (0.0, 0.75), 4


@dataclass(frozen=True)
class _amplified_on_policy(amplified_likelihood):
    """The weights as if the rollouts were the policy's own."""

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        return super().__call__(replace(batch, sampler_logp=None))


@dataclass(frozen=True)
class _baseline_on_policy(subtract_likelihood_baseline):
    """Its baseline."""

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        return super().__call__(coefficient, replace(batch, sampler_logp=None))


def without_ratio(q: float, per_token: bool) -> Objective:
    """GARL whose weights hold no ratio: ignored altogether, or left to a truncated ratio per rationale token."""
    source = _amplified_on_policy(q)
    credit = per_span(rationale=source | _baseline_on_policy(q), answer=source)
    return Objective(credit, score_function(ratio_max=2.0) if per_token else log_likelihood())


def with_ratio(ratio: RationaleRatio) -> Callable[[float], Objective]:
    """GARL with ρ truncated this way."""
    return lambda q: garl(q, ratio=ratio)


WAYS: dict[str, Callable[[float], Objective]] = {
    "none": lambda q: without_ratio(q, per_token=False),
    "per token on the rationale alone, at most 2": lambda q: without_ratio(q, per_token=True),
    "ρ, `sequence_truncate(1.5)`": with_ratio(sequence_truncate(1.5)),
    "ρ, `sequence_truncate(3)`, the default": with_ratio(sequence_truncate(3.0)),
    "ρ, `token_truncate(2)`": with_ratio(token_truncate(2.0)),
    "ρ, `sequence_mask(3)`": with_ratio(sequence_mask(3.0)),
    "ρ, `token_mask(2)`": with_ratio(token_mask(2.0)),
    "ρ, `sequence_truncate(inf)`": with_ratio(sequence_truncate(math.inf)),
}


def measure(way: Callable[[float], Objective], q: float, distance: float) -> tuple[list[float], list[float]]:
    """Relative bias and variance of every seed."""
    biases, variances = [], []
    for seed in SEEDS:
        policy = TabularPolicy.random(seed, symbols=2, length=3, answers=2)
        noise = torch.randn(len(policy.theta), dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 100))
        sampler = replace(policy, theta=policy.theta + distance * noise)
        own = exact_moments(garl(q), policy, ROLLOUTS)
        other = exact_moments(way(q), policy, ROLLOUTS, sampler)
        biases.append(float((other.mean - own.mean).norm() / own.mean.norm()))
        variances.append(other.variance / own.variance)
    return biases, variances


def main() -> None:
    """Print the table."""
    print("| q | ratio | " + " | ".join(f"distance {d}: bias | variance" for d in DISTANCES) + " |")  # noqa: T201
    print("|---|---|" + "---|---|" * len(DISTANCES))  # noqa: T201
    for q in COMMITMENTS:
        for name, way in WAYS.items():
            cells = []
            for distance in DISTANCES:
                biases, variances = measure(way, q, distance)
                cells.append(f"{median(biases):.1%} [{min(biases):.1%}, {max(biases):.1%}] | {median(variances):.2f}")
            print(f"| {q:g} | {name} | " + " | ".join(cells) + " |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
