"""What weights and successes predict for GRPO and for every q, without a model and without a free constant.

Assumed: rollouts are independent draws; an answer is rewarded if it is the gold one, unless sampled successes say
otherwise; times are those of gradient flow in the sigmoid model, which Adam flattens.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from qredit.control.controller import MIN_LOG10_SIGNAL
from qredit.control.signal_level import smallest_sufficient_q
from qredit.core.tsallis import estimator_bias
from qredit.stats.interval import Interval, bootstrap_mean, clopper_pearson
from qredit.stats.nearest_rank import lower_median, nearest_rank
from qredit.stats.weights import effective_size, log_mean_exp
from qredit.utils.errors import QreditError

Q_VALUES = (0.0, 0.25, 0.5, 0.75, 1.0)
ADAM_EPSILON = 1e-8
GROUP_SIZES = (8, 16, 32, 64, 128)
ESCAPE_THRESHOLD = 0.5  # success probability at which an example has escaped
_TERMS = 80  # of a series in powers of ESCAPED
_LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class QPrediction:
    """What GARL and PAFT at one q would see in groups of m.

    Attributes:
        signal: share of groups whose largest effective reward a_m/m^q exceeds Adam's epsilon in float32.
        rationale_signal: share of groups in which that holds for |c_m|/m^q: some rationale is told from the others.
        reward: log10 of a group's largest effective reward, median over groups; the median rollout would say how
            bad a wrong rationale is.
        escape: log10 of the escape time, mean over examples, as a multiple of that at q = 1; None if nothing is left
            to escape.
        bias: relative bias of the gradient's length, median over examples, were all scores one vector:
            -(q(1-q)/2)·CV²/m.
        deviation: its relative standard deviation between groups, (1-q)·CV/√m.
        noise, noise_paft: energy of a gradient made of unrelated scores of unit size, as a multiple of the squared
            total weight: Σc²/(Σa)² for GARL, 1/ESS + (1 - 1/ESS)/m for PAFT.
    """

    q: float
    signal: float
    rationale_signal: float
    reward: float
    escape: float | None
    bias: float
    deviation: float
    noise: float
    noise_paft: float


@dataclass(frozen=True)
class GroupSizePrediction:
    """Groups of m: the share that GRPO learns from, and the effective number of rationales."""

    m: int
    mixed: float
    ess: float


@dataclass(frozen=True)
class Prediction:
    """What is predicted for groups of m.

    Attributes:
        success: of the sampled answers, over all rollouts.
        p_hat: mean likelihood of the gold answer, over all rollouts.
        levels: log10 p̂ of an example, quantiles 0.1, 0.5 and 0.9 over examples.
        impossible: share of examples with likelihood 0 after every rationale.
        ess: effective number of rationales in a group, (Σw)²/Σw², median over groups with likelihood.
        spread: standard deviation of log w within a group, median over groups, nats.
        mixed_seen: share of groups with both right and wrong answers, from the sampled answers.
        mixed_expected: the same from the likelihoods.
        differing: share of groups within which the first reward differs: for a graded one, more than `mixed_seen`.
        differing_total: the same for the sum of all rewards.
        silence: natural logarithm of the chance that not one sampled answer is the gold one, if the likelihoods hold.
        loud: the smallest q at which the median group's effective reward is what `q: auto` keeps; 1 where none is.
        of: one for each q.
        sizes: what other group sizes would see, extrapolated from each example's own estimates.
    """

    examples: int
    rollouts: int
    m: int
    success: Interval
    p_hat: Interval
    levels: tuple[float, float, float]
    impossible: float
    ess: float
    spread: float
    mixed_seen: float
    mixed_expected: float
    differing: float
    differing_total: float
    silence: float
    loud: float
    of: tuple[QPrediction, ...]
    sizes: tuple[GroupSizePrediction, ...]

    @property
    def contradicted(self) -> bool:
        """Whether the intervals of success and of P̂ part: the reward takes more than the gold answer, or less."""
        return _contradict(self.success, self.p_hat)

    @property
    def mixed(self) -> float:
        """Share of groups with both right and wrong answers: the larger of two estimates, each unbiased by itself.

        Where samples contradict the likelihood, `mixed_expected` is that of another reward, too large or too small, and
        the samples stand alone. Else the larger of the two errs upwards by some of their noise: near its threshold the
        advice leans towards GRPO.
        """
        return self.mixed_seen if self.contradicted else max(self.mixed_seen, self.mixed_expected)

    @property
    def log10_success(self) -> float:
        """log10 of the share of right answers: the larger of success and P̂, success alone where they contradict."""
        return self.success.value if self.contradicted else max(self.success.value, self.p_hat.value)


def predict(
    log_w: Float[Tensor, "N M"],
    right: Bool[Tensor, "N M"],
    m: int | None = None,
    score: Float[Tensor, "N M"] | None = None,
    total: Float[Tensor, "N M"] | None = None,
) -> Prediction:
    """Predictions for groups of m rollouts, from N examples with M rollouts each.

    Args:
        log_w: log-likelihood of the gold answer after each rationale, nats; -inf is a likelihood of 0.
        right: whether the sampled answer was rewarded.
        m: group size of the run; M if not given. Each example's rollouts are cut into groups of it.
        score: the first reward of the sampled answer; `right` if not given.
        total: the sum of all rewards; `score` if not given.

    Raises:
        QreditError: shapes that differ, NaN or positive logs, fewer than two rollouts, m outside 2 … M.
    """
    m = _check_inputs(log_w, right, m)
    log_w = log_w.double().clamp(max=0.0)
    groups = _cut_groups(log_w, m)
    finite = groups[groups.amax(1) > -torch.inf]
    log_p = log_mean_exp(log_w)
    log10_p = log_p / math.log(10)
    ess = effective_size(finite)
    spread = torch.where(finite.isfinite().all(1), finite.std(1), torch.inf) if len(finite) else finite.new_empty(0)
    success, p_hat = clopper_pearson(int(right.sum()), right.numel()), bootstrap_mean(log_w)
    rates = [right.double().mean(1)] if _contradict(success, p_hat) else [right.double().mean(1), log_p.exp()]
    return Prediction(
        examples=len(log_w),
        rollouts=log_w.shape[1],
        m=m,
        success=success,
        p_hat=p_hat,
        levels=tuple(nearest_rank(log10_p, level) for level in _LEVELS),  # type: ignore[arg-type]
        impossible=float((log_p == -torch.inf).double().mean()),
        ess=lower_median(ess),
        spread=lower_median(spread),
        mixed_seen=mixed_seen(right, m),
        mixed_expected=mixed_expected(groups),
        differing=share_differing(right if score is None else score, m),
        differing_total=share_differing(next(one for one in (total, score, right) if one is not None), m),
        silence=float(torch.log1p(-log_w.exp()).sum()),
        loud=_smallest_sufficient_q(groups),
        of=tuple(_predict_q(q, log_w, finite, len(groups)) for q in Q_VALUES),
        sizes=tuple(_predict_group_size(size, log_w, rates) for size in GROUP_SIZES),
    )


def mixed_seen(right: Bool[Tensor, "N M"], m: int) -> float:
    """The chance that m of an example's M answers are neither all wrong nor all right; mean over examples, unbiased."""
    return share_differing(right, m)


def share_differing(values: Shaped[Tensor, "N M"], m: int) -> float:
    """The chance that m of an example's M values are not all the same; mean over examples, unbiased."""
    subsets = math.comb(values.shape[1], m)
    all_equal = [sum(math.comb(count, m) for count in Counter(row).values()) / subsets for row in values.tolist()]
    return 1 - math.fsum(all_equal) / len(all_equal)


def mixed_expected(log_w: Float[Tensor, "G m"]) -> float:
    """The chance that a group's answers, drawn after these rationales, are neither all wrong nor all right.

    1 - Π(1 - w_j) - Π w_j, mean over groups: unbiased for 1 - (1-p)^m - p^m, if the reward takes the gold answer alone.
    """
    some_right = -torch.expm1(torch.log1p(-log_w.exp()).sum(1))
    return float((some_right - log_w.sum(1).exp()).clamp(min=0).mean())


def effective_rewards(log_w: Float[Tensor, "G m"], q: float) -> tuple[Float[Tensor, "G m"], Float[Tensor, "G m"]]:
    """log(a_j/m^q) and c_j/m^q, of groups that have likelihood: a_j = w_j/w̄^q, c_j = a_j - w̄_{¬j}^{1-q}."""
    m = log_w.shape[1]
    log_mean = log_mean_exp(log_w)[:, None]
    log_a = log_w - q * log_mean
    own = torch.eye(m, dtype=torch.bool)
    log_others = log_w[:, None, :].masked_fill(own, -torch.inf).logsumexp(2) - math.log(m - 1)
    baseline = torch.exp((1 - q) * log_others) if q < 1 else torch.ones_like(log_others)
    return log_a - q * math.log(m), (log_a.exp() - baseline) / m**q


def log_escape_time(log_p: Float[Tensor, " N"], q: float, delta: float = ESCAPE_THRESHOLD) -> Float[Tensor, " N"]:
    """log T_q(p0, δ) of gradient flow in the sigmoid model: `tsallis.escape_time`, for p0 however small.

    T_q = ∫_{p0}^{δ} du / (u^{2-q}(1-u)²) = Σ_n (n+1) ∫ u^{n+q-2} du, by its terms; -inf where p0 ≥ δ, inf at p0 = 0.

    Args:
        log_p: (N,) log p0, nats; -inf is 0.
        q: commitment, 0 … 1.
        delta: success probability at which a model has escaped, in (0, 1).
    """
    log_p = log_p.clamp(max=math.log(delta))
    rest = torch.zeros_like(log_p)
    for n in range(1, _TERMS):
        power = n + q - 1
        end = math.log(delta) * power
        rest += (n + 1) * ((math.log(delta) - log_p) if power == 0 else (math.exp(end) - (power * log_p).exp()) / power)
    if q == 1.0:
        return (math.log(delta) - log_p + rest).log()
    first = (1 - q) * (math.log(delta) - log_p)  # log of (p0/δ)^{-(1-q)}
    scale = -(1 - q) * math.log(delta) - math.log(1 - q)
    long = first + torch.log(-torch.expm1(-first)) + scale
    return torch.logaddexp(long, rest.clamp(min=0).log())


def _smallest_sufficient_q(groups: Float[Tensor, "G m"]) -> float:
    largest, means = groups.amax(1) / math.log(10), log_mean_exp(groups) / math.log(10)
    return smallest_sufficient_q(largest.tolist(), means.tolist(), groups.shape[1], MIN_LOG10_SIGNAL)


def _predict_q(q: float, log_w: Tensor, finite: Tensor, groups: int) -> QPrediction:
    m = finite.shape[1]
    log_a, c = effective_rewards(finite, q)
    squared = _squared_variation(log_w[log_w.amax(1) > -torch.inf])
    ess = effective_size(finite)
    total = (log_a.logsumexp(1) if len(finite) else log_a.sum(1)).exp()
    return QPrediction(
        q=q,
        signal=float((log_a.amax(1).exp().float() > ADAM_EPSILON).sum() / groups) if len(finite) else 0.0,
        rationale_signal=float((c.abs().amax(1).float() > ADAM_EPSILON).sum() / groups) if len(finite) else 0.0,
        reward=lower_median(log_a.amax(1)) / math.log(10),
        escape=_escape(log_mean_exp(log_w), q),
        bias=lower_median([float(_bias(row, q, m)) for row in log_w if row.max() > -torch.inf], empty=0.0),
        deviation=(1 - q) * math.sqrt(max(lower_median(squared), 0.0) / m),
        noise=lower_median(torch.where(total > 0, c.square().sum(1) / total**2, torch.inf)),
        noise_paft=lower_median(1 / ess + (1 - 1 / ess) / m),
    )


def _bias(log_w: Float[Tensor, " M"], q: float, m: int) -> Tensor:
    """The relative bias in groups of m, to leading order, with one and the same score for every rationale."""
    w = (log_w - log_w.logsumexp(0) + math.log(len(log_w))).exp()  # in units of their mean, which cancels
    alike = torch.ones(len(w), 1, dtype=torch.float64)
    return -estimator_bias(torch.full_like(w, 1 / len(w)), w, alike, q)[0] / m


def _squared_variation(log_w: Float[Tensor, "N M"]) -> Float[Tensor, " N"]:
    """CV², the variance of an example's weights over their squared mean."""
    w = (log_w - log_mean_exp(log_w)[:, None]).exp()
    return (w - 1).square().mean(1)


def _escape(log_p: Float[Tensor, " N"], q: float) -> float | None:
    log_p = log_p[log_p > -torch.inf]
    cold = log_p[log_p < math.log(ESCAPE_THRESHOLD)]
    if not len(cold):
        return None
    return float(log_escape_time(cold, q).logsumexp(0) - log_escape_time(cold, 1.0).logsumexp(0)) / math.log(10)


def _predict_group_size(m: int, log_w: Tensor, rates: Sequence[Tensor]) -> GroupSizePrediction:
    """Groups of m, by the success rate of each example, of which there may be two estimates."""

    def mixed(p: Tensor) -> float:
        return float((-torch.expm1(m * torch.log1p(-p)) - p**m).clamp(min=0).mean())

    alive = log_w[log_w.amax(1) > -torch.inf]
    share = lower_median(1 / (1 + _squared_variation(alive)))
    return GroupSizePrediction(m, max(map(mixed, rates)), max(m * share, 1.0))


def _contradict(success: Interval, p_hat: Interval) -> bool:
    return success.is_above(p_hat) or p_hat.is_above(success)


def _cut_groups(log_w: Tensor, m: int) -> Float[Tensor, "G m"]:
    whole = log_w.shape[1] // m * m
    return log_w[:, :whole].reshape(-1, m)


def _check_inputs(log_w: Tensor, right: Tensor, m: int | None) -> int:
    if log_w.ndim != 2 or log_w.shape != right.shape or log_w.shape[1] < 2 or not len(log_w):
        raise QreditError(
            f"the probe needs examples × rollouts, two rollouts at least, of likelihoods and successes alike; got "
            f"{tuple(log_w.shape)} and {tuple(right.shape)}"
        )
    if bool(log_w.isnan().any()) or float(log_w.max()) > 1e-6:
        raise QreditError("log-likelihoods must be numbers of at most 0")
    m = log_w.shape[1] if m is None else m
    if not 2 <= m <= log_w.shape[1]:
        raise QreditError(f"groups of m={m} cannot be cut from {log_w.shape[1]} rollouts; m is 2 to as many")
    return m
