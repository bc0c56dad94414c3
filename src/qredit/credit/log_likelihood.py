"""The log-likelihood of the gold answer as a reward, and the weights that keep such a reward right off policy.

Notation as in `qredit.credit.likelihood`: w_m = p(y* | x, z_m), ρ_m = p_θ(z_m|x)/μ(z_m|x), which is 1 on policy.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.field_names import REFERENCE_LOGP
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio
from qredit.core.schedule import check_range
from qredit.credit.likelihood import log_importance_weight, log_weight, mark_ratio
from qredit.stats.masked import apply_mask


@dataclass(frozen=True)
class answer_log_likelihood(Source):
    """c_m = log w_m, the log-probability of the whole gold answer after rationale m, in nats.

    It tells rationales apart at any likelihood: log w of -300 and of -310 differ by 10. Rows without a gold answer, and
    those whose w is 0 and whose log w is therefore no number, are left out of their group.
    """

    needs = frozenset({"answer_logp"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        log_w, known = _finite_log_weight(batch, str(self))
        return Coefficient(torch.where(known, log_w, 0.0)[:, None], keep=known[:, None])


@dataclass(frozen=True)
class answer_geometric_mean(Source):
    """c_m = w_m^{1/|y*|}, the geometric mean of the probabilities of the gold answer's tokens.

    Between 0 and 1, and of the same size for answers of any length, where w falls with every token. Rows without a gold
    answer are left out. Every token of the answer counts: its seam and its end, too.
    """

    needs = frozenset({"answer_logp"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        log_w, keep = log_weight(batch, str(self))
        mean = log_w / batch.answer_length.clamp(min=1)
        return Coefficient(torch.where(keep, mean.exp(), 0.0)[:, None], keep=keep[:, None])


@dataclass(frozen=True)
class supervised_answer(Source):
    """c_m = 1 in rows that have a gold answer: its tokens are imitated, whatever the rationale before them.

    Rows whose w is 0 are left out, since the gradient of log 0 is no number.
    """

    needs = frozenset({"answer_logp"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        _, known = _finite_log_weight(batch, str(self))
        return Coefficient(known.double()[:, None], keep=known[:, None])


@dataclass(frozen=True)
class weigh_by_ratio(Credit):
    """c_m ← ρ_m·c_m, ρ_m = p_θ(z_m|x)/μ(z_m|x): the same mean from rationales that another policy drew.

    Under an objective of rewards ρ_m is over the sampled answer, too: `rloo() | weigh_by_ratio()`. Its surrogate then
    sees such rows as the policy's own, so that a clip has no effect on them.

    It stands last, behind the baseline, so that the baseline carries the ratio too: E_μ[ρ ∇log p_θ(z)] = 0, where
    E_μ[∇log p_θ(z)] is not. Nothing changes on policy.

    Args:
        ratio: how the importance ratio is truncated.
    """

    ratio: RationaleRatio = DEFAULT_RATIO
    needs_off_policy = frozenset({"logp"})

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        ratio = self.ratio.log(batch, str(self)).exp()[:, None]
        keep = torch.ones_like(ratio, dtype=torch.bool) if coefficient.keep is None else coefficient.keep
        return replace(coefficient, value=coefficient.value * ratio, holds_ratio=mark_ratio(batch, keep.any(1)))


@dataclass(frozen=True)
class subtract_reference_log_ratio(Credit):
    """c_m ← c_m - strength · Σ_t [log p(z_t) - log p_ref(z_t)], over the sampled tokens of rationale m.

    A KL divergence as part of the reward. Its mean over rationales is KL(p ‖ p_ref), and as a reward its gradient is
    that of the divergence, since E[∇log p(z)] = 0.

    Args:
        strength: β, at least 0, per nat.
    """

    strength: float
    needs = frozenset({"logp", REFERENCE_LOGP})

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, math.inf)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        now, reference = (batch.require(name, str(self)).double() for name in ("logp", REFERENCE_LOGP))
        drift = apply_mask(now - reference, batch.rationale & batch.sampled).sum(1)
        return coefficient.with_row(value - self.strength * drift)


@dataclass(frozen=True)
class log_mean_gain(Source):
    """c_m = M·(log w̄ - log w̄_¬m) = M·log(1 + (w_m/w̄_¬m - 1)/M): what row m adds to the log of its group's mean.

    w̄_¬m, the mean of the others, does not depend on z_m. So log w̄_¬m changes no expectation, and the mean of
    (1/M) Σ c_m ∇log p(z_m) is that of log w̄ Σ ∇log p(z_m). For large M c_m is w_m/w̄ - 1.

    Computed from log w_m - log w̄_¬m, so that no likelihood underflows. Exactly 0 in a group of equal w, where every w
    is 0, in a row that has no others, and in rows without a gold answer.

    Off policy c_m = ρ_m·M·log(1 + (w_m/w̄_¬m - 1)/M), where w̄_¬m is the others' mean of ρw. The limit for large M
    is as on policy. At finite M a bias remains, of order 1/M and of the variance of ρ.

    Args:
        floor: where all others have w = 0, log w̄_¬m is -inf: it is taken as no lower than `floor` nats below log w_m.
            Between 0 and 700.
        ratio: how the importance ratio of a rationale is truncated; it is 1 on policy.
    """

    floor: float = 100.0
    ratio: RationaleRatio = DEFAULT_RATIO
    needs = frozenset({"answer_logp"})
    needs_off_policy = frozenset({"logp"})
    scope = Scope.GROUP

    def __post_init__(self) -> None:
        check_range("floor", self.floor, 0.0, 700.0)

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        groups = batch.groups
        log_w, keep = log_weight(batch, str(self))
        log_ratio_w, _ = log_importance_weight(batch, self.ratio, str(self))
        log_others = groups.log_mean_exp_of_others(log_ratio_w, keep)
        size = groups.count(keep).clamp(min=1)
        lead = (log_w - log_others).clamp(max=self.floor)
        gain = size * torch.log1p(torch.expm1(lead) / size)
        equal = groups.is_constant(log_w, keep) & (batch.sampler_logp is None)  # a residue would be scaled up
        nothing = equal | (size < 2) | lead.isnan()
        value = torch.where(nothing | ~keep, 0.0, gain * self.ratio.log(batch, str(self)).exp())
        return Coefficient(value[:, None], keep=keep[:, None], holds_ratio=mark_ratio(batch, keep))


def _finite_log_weight(batch: RolloutBatch, wanted_by: str) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """log w of each row in float64, and the rows that have a gold answer with w > 0."""
    log_w, keep = log_weight(batch, wanted_by)
    return log_w, keep & (log_w > -torch.inf)
