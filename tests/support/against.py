"""Reward objectives as another library writes them down, wrong variants of each, and a measure of disagreement."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qredit import Objective, RolloutBatch, on_span
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.core.reduce import mean_per_rollout, mean_per_token, sum_per_length
from qredit.core.surrogate import clipped_ratio, clipped_sequence_ratio, plain_ratio, score_function
from qredit.credit.covariance import drop_covariance_band
from qredit.credit.group import center_by_group, scale_by_batch_std, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives import cispo, dapo, dr_grpo, grpo, gspo, maxrl, reinforce_pp, reinforce_pp_baseline, rloo
from qredit.penalties.covariance import kl_covariance

LENGTH = 8
METHODS = ("grpo", "dr_grpo", "dapo", "rloo", "maxrl", "gspo", "cispo")
CAP, WIDTHS = 1.5, (0.05, 0.1)  # what cuts off about half of the tokens that moved


def objectives(epsilon_std: float) -> dict[str, Objective]:
    """The methods, with the other library's constant beside the standard deviation."""
    return {
        "grpo": grpo(epsilon_std=epsilon_std),
        "dr_grpo": dr_grpo(length=LENGTH),
        "dapo": dapo(epsilon_std=epsilon_std),
        "dapo_capped_at_10": dapo(epsilon_std=epsilon_std, dual_clip=10.0),
        "rloo": rloo(),
        "maxrl": maxrl(),
        "gspo": gspo(*WIDTHS, epsilon_std),
        "cispo": cispo(CAP, epsilon_std),
        "reinforce_pp_baseline": reinforce_pp_baseline(),
        "kl_cov": replace(dapo(epsilon_std=epsilon_std), surrogate=plain_ratio()) | kl_covariance(0.5, share=0.1),
        "clip_cov": dapo(epsilon_std=epsilon_std) | drop_covariance_band(1.0, 0.02, 0.3, 0.2, 0.28),
    }


@dataclass(frozen=True)
class scale_by_population_std(Credit):
    """scale_by_group_std with n for n-1: the mistake of leaving out Bessel's correction."""

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        count = batch.groups.count(keep)
        population = batch.groups.std(value, keep) * ((count - 1).clamp(min=0) / count.clamp(min=1)).sqrt()
        return coefficient.with_row(value / (population + 1e-4))


CENTRED = on_span("sampled", reward() | center_by_group())
SCALED = on_span("sampled", reward() | center_by_group() | scale_by_group_std())
MUTANTS = {
    ("grpo", "the standard deviation with n"): replace(
        grpo(), source=on_span("sampled", reward() | center_by_group() | scale_by_population_std())
    ),
    ("grpo", "rewards not centred"): replace(grpo(), source=on_span("sampled", reward() | scale_by_group_std())),
    ("grpo", "one mean over all tokens"): replace(grpo(), reduction=mean_per_token()),
    ("grpo", "clip-higher"): replace(grpo(), surrogate=clipped_ratio(0.2, 0.28)),
    ("dr_grpo", "divided by the group's std"): replace(dr_grpo(length=LENGTH), source=SCALED),
    ("dr_grpo", "divided by the rollout's own length"): replace(dr_grpo(length=LENGTH), reduction=mean_per_rollout()),
    ("dr_grpo", "divided by one token less"): replace(dr_grpo(length=LENGTH), reduction=sum_per_length(LENGTH - 1)),
    ("dapo", "a symmetric clip"): replace(dapo(), surrogate=clipped_ratio(0.2, 0.2)),
    ("dapo", "the mean of the rollouts' means"): replace(dapo(), reduction=mean_per_rollout()),
    ("dapo", "not divided by the std"): replace(dapo(), source=CENTRED),
    ("rloo", "the rollout's own reward in its baseline"): replace(rloo(), source=CENTRED),
    ("rloo", "one mean over all tokens"): replace(rloo(), reduction=mean_per_token()),
    ("rloo", "ratios not truncated"): replace(rloo(), surrogate=score_function(math.inf)),
    ("maxrl", "divided by the group's std"): replace(maxrl(), source=SCALED),
    ("maxrl", "one mean over all tokens"): replace(maxrl(), reduction=mean_per_token()),
    ("maxrl", "ratios not truncated"): replace(maxrl(), surrogate=score_function(math.inf)),
    ("kl_cov", "the penalty on every token"): replace(dapo(), surrogate=plain_ratio()) | kl_covariance(0.5, share=1.0),
    ("kl_cov", "ratios clipped"): dapo() | kl_covariance(0.5, share=0.1),
    ("clip_cov", "the tokens above the band too"): dapo() | drop_covariance_band(1.0, 0.02, 60.0, 0.2, 0.28),
    ("clip_cov", "none dropped"): dapo(),
    ("gspo", "a ratio for each token"): replace(gspo(), surrogate=clipped_ratio(*WIDTHS)),
    ("gspo", "one mean over all tokens"): replace(gspo(*WIDTHS), reduction=mean_per_token()),
    ("gspo", "no clip"): replace(gspo(), surrogate=clipped_sequence_ratio(1.0, math.inf)),
    ("gspo", "not divided by the std"): replace(gspo(*WIDTHS), source=CENTRED),
    ("cispo", "tokens dropped beyond the cap"): replace(cispo(), surrogate=clipped_ratio(1.0, CAP - 1)),
    ("cispo", "ratios not truncated"): replace(cispo(), surrogate=score_function(math.inf)),
    ("cispo", "the mean of the rollouts' means"): replace(cispo(CAP), reduction=mean_per_rollout()),
    ("reinforce_pp_baseline", "no baseline"): reinforce_pp(),
    ("reinforce_pp_baseline", "whitened over rollouts"): replace(
        reinforce_pp_baseline(), source=on_span("sampled", reward() | center_by_group() | scale_by_batch_std())
    ),
}


def disagreement(ours: Tensor, theirs: Tensor) -> float:
    """‖ours - theirs‖ / ‖theirs‖; infinite where only theirs is 0."""
    difference, size = float(torch.linalg.vector_norm(ours - theirs)), float(torch.linalg.vector_norm(theirs))
    return difference / size if size else math.inf if difference else 0.0
