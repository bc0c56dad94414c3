"""What a batch says about a run: numbers for logs, computed beside the formulas and never inside them."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import find_power, named_stages, temper_likelihood
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio
from qredit.core.objective import Objective
from qredit.credit.likelihood import (
    LikelihoodStage,
    amplified_likelihood,
    log_importance_weight,
    log_weight,
    subtract_likelihood_baseline,
    subtract_mixture_baseline,
)
from qredit.stats.nearest_rank import nearest_rank
from qredit.utils.former_names import former_names

_ADAM_EPSILON = 1e-8


def find_likelihood_stage(objective: Objective) -> LikelihoodStage | None:
    """The first stage over q; None where there is none."""
    return next((stage for _, stage in named_stages(objective.source) if isinstance(stage, LikelihoodStage)), None)


def get_q(objective: Objective) -> float | None:
    """q of the first likelihood stage of a plain objective; None when it has none."""
    stage = find_likelihood_stage(objective)
    return None if stage is None else stage.power()


def group_p_hat(batch: RolloutBatch, ratio: RationaleRatio = DEFAULT_RATIO) -> Float[Tensor, " G"]:
    """log p̂ = log w̄ of every group that has answers, in nats; off policy w̄ is the mean of ρw."""
    log_w, keep = log_importance_weight(batch, ratio, "p_hat")
    return _one_per_group(batch, batch.groups.log_mean_exp(log_w, keep), keep)


def effective_sample_size(batch: RolloutBatch, ratio: RationaleRatio = DEFAULT_RATIO) -> Float[Tensor, " G"]:
    """(Σw)²/Σw² of every group that has likelihood: between 1 (one rationale carries all) and M; off policy of ρw."""
    log_w, keep = log_importance_weight(batch, ratio, "ess")
    groups = batch.groups
    hopeful = keep & (groups.log_mean_exp(log_w, keep) > -torch.inf)
    return _one_per_group(batch, groups.effective_size(log_w, keep), hopeful)


def no_success(batch: RolloutBatch) -> Float[Tensor, " G"]:
    """For every group with a scored reward, 1 if none is above 0, so that no rollout succeeded; else 0.

    Rollouts that were shown the gold answer do not count: they say nothing of what the model can do without it.
    """
    if batch.reward is None:
        return torch.zeros(0, dtype=torch.float64)
    scored = _scored_without_hint(batch, batch.reward)
    succeeded = batch.groups.total((batch.reward > 0).double(), scored)
    return (_one_per_group(batch, succeeded, scored) == 0).double()


def success(batch: RolloutBatch) -> Float[Tensor, " G"]:
    """The mean reward of every group with a scored reward, of rollouts that were not shown the gold answer."""
    if batch.reward is None:
        return torch.zeros(0, dtype=torch.float64)
    scored = _scored_without_hint(batch, batch.reward)
    return _one_per_group(batch, batch.groups.mean(batch.reward.nan_to_num().double(), scored), scored)


def collect_likelihood_stats(objective: Objective, batch: RolloutBatch) -> Mapping[str, Float[Tensor, " N"]]:
    """What `compute_likelihood_metrics` is made of; the facts of several batches are joined, name by name, before it.

    One number per group: `p_hat` and `largest` (log10 w̄ and log10 of the largest w; of ρw off policy, of u·w with a
    proposal); `ess` of each group that has likelihood. One per row with a finite likelihood: `nll`, nats per token of
    the gold answer. With a stage over q also, per group, `effective` (largest a_m/M^q) and `centred` (largest c_m/M^q),
    and per row `lost`, whether its a_m/M^q is 0 in float32; these are of the tempered likelihood where the objective
    tempers it. Empty for an objective that reads no likelihood. Of rollouts with a proposal also what
    `collect_proposal_stats` tells.
    """
    if "answer_logp" not in objective.needs or batch.answer_logp is None or not bool(batch.has_answer.any()):
        return {}
    stage = find_likelihood_stage(objective)
    ratio = DEFAULT_RATIO if stage is None else stage.ratio
    log_w, keep = log_weight(batch, "metrics")
    finite = keep & (log_w > -torch.inf)
    known = batch if stage is not None or batch.logp is not None else replace(batch, sampler_logp=None)
    facts = {
        "p_hat": group_p_hat(known, ratio) / math.log(10),
        "largest": _one_per_group(batch, log_importance_weight(known, ratio, "largest")[0], keep) / math.log(10),
        "ess": effective_sample_size(known, ratio),
        "nll": -log_w[finite] / batch.answer_length[finite],
    }
    if stage is None:
        return facts
    seen = temper_likelihood(batch, find_power(objective.source))
    amplified = amplified_likelihood(stage.q, ratio=ratio)(seen)
    subtract_baseline = subtract_likelihood_baseline if seen.proposal is None else subtract_mixture_baseline
    centred = subtract_baseline(stage.q, ratio=ratio)(amplified, seen)
    return {
        **facts,
        "effective": _one_per_group(batch, amplified.value[:, 0], keep),
        "centred": _one_per_group(batch, centred.value[:, 0], keep),
        "lost": (amplified.value[:, 0].float() == 0)[finite].double(),
        **collect_proposal_stats(batch, ratio),
    }


def collect_proposal_stats(batch: RolloutBatch, ratio: RationaleRatio) -> Mapping[str, Float[Tensor, " N"]]:
    """What rationales drawn behind the hint are worth; nothing where the rollouts know of no proposal.

    One number per group with such rows: `proposal_ess`, (Σu)²/Σu² of the weights u of all its rows; where it has
    likelihood `proposal_share`, the part of Σ u·w that hinted rows carry. One per hinted row: `proposal_u`, log10 u.
    """
    if batch.proposal is None:
        return {}
    log_u, groups = ratio.log(batch, "metrics"), batch.groups
    log_uw, keep = log_importance_weight(batch, ratio, "metrics")
    hinted = batch.proposal & keep
    mixed = keep & (groups.total(hinted.double(), keep) > 0)
    hopeful = mixed & (groups.log_mean_exp(log_uw, keep) > -torch.inf)
    carried = groups.log_mean_exp(torch.where(hinted, log_uw, -torch.inf), keep) - groups.log_mean_exp(log_uw, keep)
    return {
        "proposal_ess": _one_per_group(batch, groups.effective_size(log_u, keep), mixed),
        "proposal_share": _one_per_group(batch, carried.exp(), hopeful),
        "proposal_u": log_u[hinted] / math.log(10),
    }


def compute_likelihood_metrics(q: float | None, facts: Mapping[str, Float[Tensor, " N"]]) -> Mapping[str, float]:
    """p̂ quantiles over groups, the published curves of effective reward and centred weight, and the weights' health.

    `effective_reward/max` is the largest a_m/M^q and `centred_weight/max` the largest c_m/M^q (Figure 3 of arXiv
    2604.25907), whatever the objective makes of them. `coefficient/underflow` is the share of rows with a finite
    likelihood whose a_m/M^q is 0 in float32. Beside a far better row of their group that loses nothing. What does is
    counted by group: `groups/underflow`, every a_m/M^q is 0, where (1-q)·|log w̄| exceeds about 103, and
    `groups/below_adam_epsilon`, every one is below 1e-8: such groups hardly move the weights; raise q.

    With a proposal: `proposal/ess`, the effective number of a group's rows by u alone, `proposal/weight_share`, the
    part of Σ u·w that rows drawn behind the hint carry (the plain ones carry the rest), and `proposal/log10_u`, the
    median of their log10 u: far below 0 where the plain prompt would hardly draw what the hinted one does.

    Args:
        q: None for an objective without one, which has the quantiles, `weights/ess` and `answer/nll_per_token` alone.
    """
    told = {
        **{f"p_hat/log10_q{level}": nearest_rank(facts["p_hat"], level / 100) for level in (10, 50, 90)},
        "weights/ess": mean_or_nan(facts["ess"]),
        "answer/nll_per_token": mean_or_nan(facts["nll"]),
    }
    if q is None:
        return told
    finite = facts["p_hat"] > -torch.inf
    lost = finite & (facts["effective"].float() == 0)
    faint = finite & (facts["effective"] < _ADAM_EPSILON)
    hopeful = finite.sum().clamp(min=1)
    return {
        "q": q,
        **told,
        "effective_reward/max": float(facts["effective"].max()),
        "centred_weight/max": float(facts["centred"].max()),
        "coefficient/underflow": mean_or_nan(facts["lost"]),
        "groups/underflow": float(lost.sum() / hopeful),
        "groups/below_adam_epsilon": float(faint.sum() / hopeful),
        **_compute_proposal_metrics(facts),
    }


def _compute_proposal_metrics(facts: Mapping[str, Float[Tensor, " N"]]) -> Mapping[str, float]:
    if not len(facts.get("proposal_u", ())):
        return {}
    return {
        "proposal/ess": mean_or_nan(facts["proposal_ess"]),
        "proposal/weight_share": mean_or_nan(facts["proposal_share"]),
        "proposal/log10_u": nearest_rank(facts["proposal_u"], 0.5),
    }


def _scored_without_hint(batch: RolloutBatch, reward: Float[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """Rows with a reward that were not shown the gold answer."""
    return ~reward.isnan() if batch.proposal is None else ~reward.isnan() & ~batch.proposal


def _one_per_group(batch: RolloutBatch, value: Tensor, keep: Bool[Tensor, " B"]) -> Tensor:
    """A per-row statistic that is equal within a group, once for each group with a kept row."""
    groups = batch.groups
    kept = groups.dense(keep.double(), 0.0).any(1)
    filled = groups.dense(torch.where(keep, value, torch.full_like(value, -torch.inf)), -torch.inf)
    return filled.amax(1)[kept]


def mean_or_nan(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan


__getattr__ = former_names(
    __name__,
    {
        "commitment": "get_q",
        "likelihood_facts": "collect_likelihood_stats",
        "likelihood_metrics": "compute_likelihood_metrics",
    },
)
