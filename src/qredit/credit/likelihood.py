"""The likelihood of the gold answer as a coefficient: the two factorisations of ∇ℓ_q (arXiv 2604.25907).

Notation, per group of M rows: w_m = p(y* | x, z_m), w̄ = mean of w, w̄_¬m = mean over the others. Every power and mean is
taken in log space (float64) from `answer_logp` = log w; only the final coefficient is exponentiated. Rows without a
gold answer, and groups whose every w is 0, get 0.

`normalize` divides by M^q, as the paper's algorithms do: the effective reward a_m then lies in [0, 1]. Statements about
bias and consistency hold for the unnormalised form.

Off policy, where the rollouts were drawn from μ (older weights, or another sampler), ρ_m w_m stands wherever w_m stood,
with ρ_m = p_θ(z_m|x)/μ(z_m|x) held constant: E_μ[ρ f(z)] = E_θ[f(z)], so that w̄ still estimates P. The coefficient then
holds the ratio of its rationale (`Coefficient.holds_ratio`), and no surrogate may weigh its tokens once more.

Where some of a group's rationales come from the policy shown the gold answer, the mixture's weight u_m takes the place
of ρ_m (`mixture_weight`).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.importance import DEFAULT_RATIO, RationaleRatio
from qredit.core.schedule import Schedule, check_range
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed


@dataclass(frozen=True)
class LikelihoodStage:
    """What the stages over q share: the fields they read, the check of q, and ρ·w on a log scale.

    Args:
        q: commitment, 0 … 1.
        normalize: divide by M^q.
        ratio: how the importance ratio of a rationale is truncated; it is 1 on policy.
    """

    q: float | Schedule
    normalize: bool = True
    ratio: RationaleRatio = DEFAULT_RATIO
    needs_off_policy = frozenset({"logp"})
    scope = Scope.GROUP

    @property
    def needs(self) -> frozenset[str]:
        """The likelihood, and what the ratio reads: made anew by every forward pass, so `when` is UPDATE."""
        return frozenset({"answer_logp"}) | self.ratio.needs

    def __post_init__(self) -> None:
        check_range("q", self.q, 0.0, 1.0)

    def power(self) -> float:
        """q as a number; a schedule must have been resolved."""
        if isinstance(self.q, Schedule):
            raise QreditError(f"q of {self} is a schedule; take objective.at(progress) first")
        return float(self.q)

    def log_scale(self, batch: RolloutBatch) -> Float[Tensor, " B"]:
        """log of the factor 1/M^q, or 0 where `normalize` is off."""
        rows = batch.groups.count(batch.has_answer).clamp(min=1)
        return -self.power() * rows.log() if self.normalize else torch.zeros_like(rows)


def log_weight(batch: RolloutBatch, wanted_by: str) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """log w of each row in float64, and the rows that have one."""
    keep = batch.has_answer
    value = batch.require("answer_logp", wanted_by).double()
    return torch.where(keep, value, -torch.inf), keep


def log_importance_weight(
    batch: RolloutBatch, ratio: RationaleRatio, wanted_by: str
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """log(ρ·w) of each row in float64, and the rows that have a gold answer; log w itself on policy.

    With a proposal it is log(u·w), on policy, too.

    Args:
        batch: whole groups, with the fields that are needed.
        ratio: how ρ is truncated.
        wanted_by: what errors say needs the field.
    """
    log_w, keep = log_weight(batch, wanted_by)
    return torch.where(log_w == -torch.inf, log_w, log_w + ratio.log(batch, wanted_by)), keep


def mark_ratio(batch: RolloutBatch, keep: Bool[Tensor, " B"]) -> Bool[Tensor, "B 1"] | None:
    """The rows whose coefficient holds its ratio: those with a gold answer, off policy."""
    return None if batch.sampler_logp is None else keep[:, None]


@dataclass(frozen=True)
class amplified_likelihood(LikelihoodStage, Source):
    """a_m / M^q with a_m = w_m / w̄^q: the likelihood, amplified by the group's own w̄^{-q}.

    The coefficient of the pathwise (answer) part of GARL: ∇w_m / w̄^q written as a_m ∇log w_m. q = 0 leaves w_m;
    q = 1 is the self-normalised weight of IWAE. Group mean w̄^{1-q} / M^q. Off policy ρ_m w_m / w̄^q, w̄ = mean of ρw.
    """

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        log_w, keep = log_importance_weight(batch, self.ratio, str(self))
        log_mean = batch.groups.log_mean_exp(log_w, keep)
        exponent = log_w - self.power() * log_mean + self.log_scale(batch)
        value = torch.where(log_w == -torch.inf, 0.0, exponent.exp())
        return Coefficient(value[:, None], keep=keep[:, None], holds_ratio=mark_ratio(batch, keep))


@dataclass(frozen=True)
class subtract_likelihood_baseline(LikelihoodStage, Credit):
    """c_m ← c_m - w̄_¬m^{1-q} / M^q: GARL's leave-one-out control variate.

    It does not depend on z_m and may stand only on the sampled (score-function) part; on the answer part it would
    change the expectation. At q = 1 it is 1. It is 0 for a row whose others all have w = 0, at every q (the limit of
    q → 1 from below), and for a row that has no others.

    Off policy it is ρ_m·w̄_¬m^{1-q}, w̄_¬m the others' mean of ρw: it must vanish under μ, and E_μ[ρ ∇log p_θ(z)] = 0.
    """

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        log_w, keep = log_importance_weight(batch, self.ratio, str(self))
        log_baseline = self.log_baseline(batch, log_w, keep)
        baseline = (log_baseline + self.log_scale(batch) + self.ratio.log(batch, str(self))).exp()
        return coefficient.with_row(value - torch.where(log_baseline == -torch.inf, 0.0, baseline))

    def log_baseline(
        self, batch: RolloutBatch, log_w: Float[Tensor, " B"], keep: Bool[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """log w̄_¬m^{1-q} of each row; -inf where the others have no weight.

        Args:
            batch: whole groups, with the fields that are needed.
            log_w: log(ρ·w).
            keep: the rows that have a gold answer.
        """
        return self.raise_to_power(batch.groups.log_mean_exp_of_others(log_w, keep))

    def raise_to_power(self, log_mean: Tensor) -> Tensor:
        """log of (a mean)^{1-q}; that of 0 is -inf at every q, as in the limit q → 1 from below."""
        power = 1.0 - self.power()
        raised = torch.zeros_like(log_mean) if power == 0.0 else power * log_mean
        return torch.where(log_mean == -torch.inf, log_mean, raised)


@dataclass(frozen=True)
class subtract_mixture_baseline(subtract_likelihood_baseline):
    """c_m ← c_m - u_m·b_m / M^q: GARL's control variate where k of M rationales come from a proposal.

    The numbers k and M-k are fixed, so the others' mix of sources depends on which source row m is of, and the mean of
    the others would change the expectation. Here every row's baseline rests on M-k-1 plain and k-1 hinted rows:

        b_m = mean over the rows j of the other source of
              [(1-λ)·mean of uw over plain rows without m and j + λ·mean of uw over hinted rows without m and j]^{1-q}

    A mean over no rows is 0, which leaves the expectation as it is, so that a source with a single row is a weaker
    baseline. A group without hinted rows has that of `subtract_likelihood_baseline`, bit for bit.

    Source: ours.
    """

    @property
    def needs(self) -> frozenset[str]:
        """The likelihood, what the ratio reads, and which rows are hinted."""
        return super().needs | {"proposal"}

    def log_baseline(
        self, batch: RolloutBatch, log_w: Float[Tensor, " B"], keep: Bool[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        plain = super().log_baseline(batch, log_w, keep)
        proposal, groups = batch.require("proposal", str(self)), batch.groups
        if not bool(proposal.any()):
            return plain
        hinted = groups.dense((proposal & keep).double(), 0.0).bool()
        kept = groups.dense(keep.double(), 0.0).bool()
        log_mean = self._log_mean_of_pairs(groups.dense(log_w, -torch.inf), kept, hinted)
        mixed = hinted.any(1, keepdim=True).expand_as(hinted)
        return torch.where(groups.rows(mixed.double()) > 0, groups.rows(log_mean), plain)

    def _log_mean_of_pairs(
        self, log_w: Float[Tensor, "G M"], kept: Bool[Tensor, "G M"], hinted: Bool[Tensor, "G M"]
    ) -> Float[Tensor, "G M"]:
        """log b_m of each row, from the sources' means without m and without j."""
        both = kept[:, :, None] & kept[:, None, :]
        alike = both & (hinted[:, :, None] == hinted[:, None, :])
        same = alike & ~torch.eye(log_w.shape[1], dtype=torch.bool, device=log_w.device)
        # of each row the weighted mean over its own source without it: (1-λ)·mean or λ·mean
        others = log_w[:, None, :].masked_fill(~same, -torch.inf).logsumexp(2) - same.sum(2).clamp(min=1).log()
        size, own = kept.sum(1, keepdim=True).clamp(min=1), alike.sum(2)
        part = others + (own.clamp(min=1) / size).double().log()
        pairs = self.raise_to_power(torch.logaddexp(part[:, :, None], part[:, None, :]))
        across = both & ~alike
        return pairs.masked_fill(~across, -torch.inf).logsumexp(2) - across.sum(2).clamp(min=1).log()


@dataclass(frozen=True)
class attenuated_likelihood(LikelihoodStage, Source):
    """w̄^{1-q} / M^q on every row of the group: how far maximum likelihood is attenuated towards RL.

    Off policy w̄ is the mean of ρw. A row's own ratio is not in it: `resample_by_likelihood` draws by ρw.
    """

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        log_w, keep = log_importance_weight(batch, self.ratio, str(self))
        log_mean = batch.groups.log_mean_exp(log_w, keep)
        power = 1.0 - self.power()
        exponent = torch.zeros_like(log_mean) if power == 0.0 else power * log_mean
        value = torch.where(log_mean == -torch.inf, 0.0, (exponent + self.log_scale(batch)).exp())
        return Coefficient(value[:, None], keep=keep[:, None], holds_ratio=mark_ratio(batch, keep))


@dataclass(frozen=True)
class resample_by_likelihood(Credit):
    """c_m ← c_m · n_m · M/K, n_m = how often row m is drawn in K draws with replacement, P(m) = w_m / Σw.

    E[n_m · M/K] = w_m / w̄. `resamples` is K; None is M, as in the paper. The draws are a function of (seed, group) and
    the weights alone: the same batch draws the same rows, in whatever order they stand, and one draw serves every span.
    Rows never drawn get exactly 0 and need no backward pass. Off policy P(m) = ρ_m w_m / Σρw: what is drawn then counts
    as the current policy's own, with no further ratio.

    Args:
        resamples: K.
        ratio: how the importance ratio of a rationale is truncated; it is 1 on policy.
    """

    resamples: int | None = None
    ratio: RationaleRatio = DEFAULT_RATIO
    needs_off_policy = frozenset({"logp"})
    scope = Scope.GROUP

    @property
    def needs(self) -> frozenset[str]:
        """The likelihood, the seed of the draws, and what the ratio reads."""
        return frozenset({"answer_logp", "seed"}) | self.ratio.needs

    def __post_init__(self) -> None:
        if self.resamples is not None and self.resamples < 1:
            raise QreditError(f"resamples must be at least 1 (or None for M), got {self.resamples}")

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, _ = coefficient.per_rollout(self)
        log_w, keep = log_importance_weight(batch, self.ratio, str(self))
        seed = int(batch.require("seed", str(self)))
        factor = torch.zeros_like(value)
        for number in range(len(batch.groups.size)):
            rows = ((batch.groups.index == number) & keep).nonzero()[:, 0]
            if len(rows) == 0 or bool((log_w[rows] == -torch.inf).all()):
                continue
            draws = len(rows) if self.resamples is None else self.resamples
            generator = torch.Generator().manual_seed(derive_seed(seed, int(batch.group[rows[0]])))
            counts = sample_multinomial_counts(log_w[rows], draws, generator)
            factor[rows] = counts * (len(rows) / draws)
        return replace(coefficient.with_row(value * factor), holds_ratio=mark_ratio(batch, keep))


def sample_multinomial_counts(
    log_w: Float[Tensor, " M"], draws: int, generator: torch.Generator
) -> Float[Tensor, " M"]:
    """How often each row comes up in `draws` draws with replacement, P(m) = w_m / Σw, by inversion of the CDF.

    Rows are laid out in order of weight, so a permutation of the rows permutes the counts.

    Args:
        log_w: (M,) log of each row's weight, nats; -inf is 0.
        draws: how many are drawn.
        generator: of the draws.
    """
    order = torch.argsort(log_w, descending=True, stable=True)
    cumulative = torch.softmax(log_w[order], 0).cumsum(0).cpu()
    points = torch.rand(draws, dtype=torch.float64, generator=generator) * cumulative[-1]
    drawn = torch.searchsorted(cumulative, points, right=True).clamp(max=len(log_w) - 1)
    counts = torch.bincount(drawn, minlength=len(log_w)).to(log_w)
    out = torch.empty_like(counts)
    out[order] = counts
    return out
