"""How far the sampler's log-probabilities are from the trainer's, and what the ratios between them are worth.

Metrics that TRL has keep its names.
"""

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import named_stages
from qredit.core.field_names import REINFORCED
from qredit.core.importance import RationaleRatio, mixture_weight
from qredit.core.objective import Objective

GAP, LOG_RATIO, CUT = "sampler_gap", "sampler_log_ratio", "sampler_cut"
_LARGEST = 80.0  # nats: a larger ratio is shown as e^80, whose square a float64 still holds


def find_ratio(objective: Objective) -> RationaleRatio | None:
    """How an objective truncates the ratios of rationales; None where it has none of its own."""
    stages = (stage for _, stage in named_stages(objective.source))
    found = chain.from_iterable(vars(stage).values() for stage in stages)
    ratio = next((value for value in found if isinstance(value, RationaleRatio)), None)
    return ratio.ratio if isinstance(ratio, mixture_weight) else ratio


def collect_mismatch_stats(objective: Objective, drawn: RolloutBatch, scored: RolloutBatch) -> Mapping[str, Tensor]:
    """What `compute_mismatch_metrics` is made of: of each row log ρ, and the differences of its tokens.

    ρ is over the tokens that were sampled and scored, as the ratio of an objective is.

    Args:
        objective: of this moment.
        drawn: the rows as they were sampled, with the sampler's log-probabilities.
        scored: the same with the trainer's, by the weights that sampled.
    """
    if drawn.sampler_logp is None or scored.logp is None or scored.entropy is None:
        return {}
    known = drawn.sampled & ~scored.entropy.isnan()  # rationales that PAFT did not draw were not scored
    untold = drawn.extra.get(REINFORCED)  # nothing says how likely their sampler drew them
    if untold is not None:
        known = known & ~untold.bool()[:, None]
    gap = torch.where(known, scored.logp.double() - drawn.sampler_logp.double(), 0.0)
    size = gap.abs().amax(1) if gap.shape[1] else gap.new_zeros(len(gap))
    ratio = find_ratio(objective)
    log_ratio = gap.sum(1)
    rows = (known == drawn.sampled).all(1)
    facts = {
        GAP: torch.stack([gap.abs().sum(1), known.sum(1).double(), size], 1),
        LOG_RATIO: log_ratio[rows],
    }
    if ratio is None or scored.sampler_logp is None:
        return facts
    cut = ratio.log(scored, "metrics") < log_ratio - 1e-9
    return {**facts, CUT: cut[rows].double()}


def compute_mismatch_metrics(facts: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean and largest |Δ log p| of a token in nats, the range of ρ, its ESS as a share, and the share cut."""
    gap = facts[GAP]
    told = {
        "sampling/sampling_logp_difference/mean": float(gap[:, 0].sum() / gap[:, 1].sum().clamp(min=1)),
        "sampling/sampling_logp_difference/max": float(gap[:, 2].max()),
    }
    if not len(facts[LOG_RATIO]):
        return told
    ratio = facts[LOG_RATIO].clamp(max=_LARGEST).exp()
    told |= {
        "sampling/importance_sampling_ratio/min": float(ratio.min()),
        "sampling/importance_sampling_ratio/mean": float(ratio.mean()),
        "sampling/importance_sampling_ratio/max": float(ratio.max()),
        "sampling/importance_sampling_ratio/ess": float(ratio.sum().square() / (len(ratio) * ratio.square().sum())),
    }
    return told | ({"sampling/importance_sampling_ratio/cut": float(facts[CUT].mean())} if CUT in facts else {})
