"""What a batch says about a run: numbers for logs, computed beside the formulas and never inside them."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.batch import RolloutBatch
from qredit.chain import stages
from qredit.credit.likelihood import amplified_likelihood, log_weight, subtract_likelihood_baseline
from qredit.objective import Objective


def commitment(objective: Objective) -> tuple[float, bool] | None:
    """q and `normalize` of the first likelihood stage of a plain objective; None when it has none."""
    for _, stage in stages(objective.source):
        if hasattr(stage, "q") and hasattr(stage, "normalize"):
            return float(stage.q), bool(stage.normalize)
    return None


def group_p_hat(batch: RolloutBatch) -> Float[Tensor, " G"]:
    """log P̂ = log w̄ of every group that has answers, in nats."""
    log_w, keep = log_weight(batch, "p_hat")
    return _one_per_group(batch, batch.groups.log_mean_exp(log_w, keep), keep)


def effective_sample_size(batch: RolloutBatch) -> Float[Tensor, " G"]:
    """(Σw)²/Σw² of every group that has likelihood: between 1 (one rationale carries all) and M."""
    log_w, keep = log_weight(batch, "ess")
    groups = batch.groups
    log_ratio = 2 * groups.log_mean_exp(log_w, keep) - groups.log_mean_exp(2 * log_w, keep)
    hopeful = keep & (groups.log_mean_exp(log_w, keep) > -torch.inf)
    return _one_per_group(batch, log_ratio.exp() * groups.count(keep), hopeful)


def no_success(batch: RolloutBatch) -> Float[Tensor, ""]:
    """Share of groups whose every scored reward is 0 or less: where GRPO has nothing to learn from."""
    if batch.reward is None:
        return torch.tensor(math.nan)
    scored = ~batch.reward.isnan()
    succeeded = batch.groups.total((batch.reward > 0).double(), scored)
    return (_one_per_group(batch, succeeded, scored) == 0).double().mean()


def likelihood_metrics(objective: Objective, batch: RolloutBatch) -> Mapping[str, float]:
    """p̂ quantiles, the published curves of effective reward and centred weight, and how healthy the weights are.

    `effective_reward/max` is the largest a_m/M^q and `centred_weight/max` the largest c_m/M^q of the batch (Figure 3 of
    arXiv 2604.25907), whatever the objective makes of them. `coefficient/underflow` is the share of rows with a finite
    likelihood whose a_m/M^q is 0 in float32: such rows teach nothing, and with q < 1 they do when (1-q)·|log w̄| exceeds
    about 103. Empty for an objective without a likelihood stage.
    """
    known = commitment(objective)
    if known is None or batch.answer_logp is None or not bool(batch.has_answer.any()):
        return {}
    q, normalize = known
    amplified = amplified_likelihood(q, normalize)(batch)
    centred = subtract_likelihood_baseline(q, normalize)(amplified, batch)
    p_hat = group_p_hat(batch) / math.log(10)
    ess = effective_sample_size(batch)
    log_w, keep = log_weight(batch, "metrics")
    finite = keep & (log_w > -torch.inf)
    lost = finite & (amplified.value[:, 0].float() == 0)
    answer_tokens = batch.answer.sum(1)[finite]
    return {
        "q": q,
        **{f"p_hat/log10_q{level}": _quantile(p_hat, level / 100) for level in (10, 50, 90)},
        "effective_reward/max": float(amplified.value[keep].max()),
        "centred_weight/max": float(centred.value[keep].max()),
        "weights/ess": float(ess.mean()) if len(ess) else math.nan,
        "coefficient/underflow": float(lost.sum() / finite.sum().clamp(min=1)),
        "answer/nll_per_token": float((-log_w[finite] / answer_tokens).mean()) if len(answer_tokens) else math.nan,
    }


def _one_per_group(batch: RolloutBatch, value: Tensor, keep: Bool[Tensor, " B"]) -> Tensor:
    """A per-row statistic that is equal within a group, once for each group with a kept row."""
    groups = batch.groups
    kept = groups.dense(keep.double(), 0.0).any(1)
    filled = groups.dense(torch.where(keep, value, torch.full_like(value, -torch.inf)), -torch.inf)
    return filled.amax(1)[kept]


def _quantile(values: Tensor, level: float) -> float:
    """The nearest-rank quantile: -inf among the values stays -inf and does not turn into NaN."""
    return float(values.sort().values[min(int(level * len(values)), len(values) - 1)]) if len(values) else math.nan
