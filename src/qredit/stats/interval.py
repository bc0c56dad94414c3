"""Estimates with their 95 % intervals: Clopper-Pearson, bootstraps of means in logs and of plain values, normal."""

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.utils.errors import QreditError

CONFIDENCE_LEVEL = 0.95
_NORMAL = 1.96  # half the width of a 95 % interval, in standard errors
_HALVINGS = 60
_ROUNDING = 1e-9  # n·(k/n) is k only to rounding


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its interval, all in one unit.

    The unit is that of the values that were given. The functions of rates and of weights, which may be smaller than a
    number can be, give decimal logarithms: -inf stands for 0 there.
    """

    value: float
    low: float
    high: float

    @property
    def log10(self) -> float:
        """The former name of `value`, where it is a logarithm."""
        warnings.warn("Interval.log10 is Interval.value now", DeprecationWarning, stacklevel=2)
        return self.value

    def is_above(self, other: "Interval") -> bool:
        """Whether the two intervals part, this one above."""
        return self.low > other.high

    def format(self, show: Callable[[float], str]) -> str:
        """The estimate with its ends in brackets; alone where the interval has no width, or no finite ends."""
        if self.low == self.high or (self.low, self.high) == (-math.inf, math.inf):
            return show(self.value)
        return f"{show(self.value)} [{show(self.low)}, {show(self.high)}]"


def clopper_pearson(successes: int, trials: int, level: float = CONFIDENCE_LEVEL) -> Interval:
    """The exact interval of a success rate: the rates under which what was seen is not too rare.

    Two-sided at `level`. Without a success it is one-sided: from 0 to 1 - (1 - level)^{1/n}, about 3/n at 95 % (the
    rule of three); with nothing but successes it is its mirror image. Trials are taken as independent. Rates that
    differ between trials only make it wider than it need be, as an interval for their mean. Decimal logarithms.

    Args:
        successes: 0 … trials.
        trials: at least 1.
        level: share of the distribution that the interval holds, 0 … 1.
    """
    rate = math.log10(successes / trials) if successes else -math.inf
    if successes == 0:
        return Interval(rate, -math.inf, _log10(-math.expm1(math.log1p(-level) / trials)))
    if successes == trials:
        return Interval(rate, math.log1p(-level) / trials / math.log(10), 0.0)
    tail = (1 - level) / 2
    low = _bisect_rate(lambda p: _binomial_tail(successes, trials, p) < tail)
    high = _bisect_rate(lambda p: 1 - _binomial_tail(successes + 1, trials, p) > tail)
    return Interval(rate, _log10(low), _log10(high))


def bootstrap_mean(
    log_w: Float[Tensor, "N M"], level: float = CONFIDENCE_LEVEL, resamples: int = 1000, seed: int = 0
) -> Interval:
    """The mean of all weights, given as logs, with a percentile interval: the rollouts of each example are redrawn.

    It holds for these examples. It knows only the rollouts that were drawn: success on rationales that none of them
    showed is missed, by any amount. Decimal logarithms: three times -inf if every weight is 0.

    Args:
        log_w: (N, M) log of each weight, nats; -inf is 0.
        level: share of the distribution that the interval holds, 0 … 1.
        resamples: how often is redrawn.
        seed: all draws are a function of it.
    """
    top = float(log_w.max())
    if top == -math.inf:
        return Interval(-math.inf, -math.inf, -math.inf)
    scaled = (log_w - top).exp()
    generator = torch.Generator().manual_seed(seed)
    means = torch.empty(resamples, dtype=torch.float64)
    for number in range(resamples):
        drawn = torch.randint(log_w.shape[1], log_w.shape, generator=generator)
        means[number] = scaled.gather(1, drawn).mean()
    value, low, high = ((x.log() + top) / math.log(10) for x in (scaled.mean(), *_percentiles(means, level)))
    return Interval(float(value), float(low), float(high))


def mean_interval(
    values: Sequence[float], level: float = CONFIDENCE_LEVEL, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of one value per question, not in logs, with percentiles over redrawn questions.

    Questions that all have the same value resample to it alone, an interval of no width that holds nothing. Values
    between 0 and 1 get the exact interval of a rate there: 0 of n questions reach up to 1 - (1 - level)^{1/n}, about
    3/n. A value v in between is held by the intervals of ⌊n·v⌋ and of ⌈n·v⌉ successes, the widest that its mean may
    have. Other scales have no known ends, and keep the width 0.

    Args:
        values: one for each question, taken as independent.
        level: share of the distribution that the interval holds, 0 … 1.
        resamples: how often is redrawn.
        seed: all draws are a function of it.

    Raises:
        QreditError: there is no value.
    """
    if not values:
        raise QreditError("nothing to average: there are no questions")
    mean = float(torch.tensor(values, dtype=torch.float64).mean())
    if min(values) == max(values) and 0 <= values[0] <= 1:
        total, count = len(values) * values[0], len(values)
        low = clopper_pearson(math.floor(total + _ROUNDING), count, level).low
        return Interval(mean, 10**low, 10 ** clopper_pearson(math.ceil(total - _ROUNDING), count, level).high)
    return Interval(mean, *_bootstrap_ends(values, level, resamples, seed))


def difference_interval(
    values: Sequence[float], level: float = CONFIDENCE_LEVEL, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of one difference per question, each from -1 to 1, with percentiles as `mean_interval`.

    Where all of the n differences are the same, a share of at most p = 1 - (1 - level)^{1/n} of the questions has
    another one, which may be anything from -1 to 1.

    Args:
        values: one for each question, -1 … 1.
        level: share of the distribution that the interval holds, 0 … 1.
        resamples: how often is redrawn.
        seed: all draws are a function of it.
    """
    mean, value = sum(values) / len(values), values[0]
    if min(values) == max(values):
        p = -math.expm1(math.log1p(-level) / len(values))
        return Interval(mean, max((1 - p) * value - p, -1.0), min((1 - p) * value + p, 1.0))
    return Interval(mean, *_bootstrap_ends(values, level, resamples, seed))


def normal_interval(values: Sequence[float]) -> Interval:
    """The mean of at least one value with mean ∓ 1.96 standard errors: 95 %, and quick enough for every step of a run.

    A single value says nothing of how it varies: -inf to inf. Values between 0 and 1 keep the ends between them.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    margin = _NORMAL * statistics.stdev(values) / math.sqrt(len(values))
    low, high = mean - margin, mean + margin
    if all(0.0 <= value <= 1.0 for value in values):
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(mean, low, high)


def _bootstrap_ends(values: Sequence[float], level: float, resamples: int, seed: int) -> tuple[float, float]:
    data = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    means = data[torch.randint(len(data), (resamples, len(data)), generator=generator)].mean(1)
    low, high = _percentiles(means, level).tolist()
    return low, high


def _percentiles(means: Float[Tensor, " R"], level: float) -> Float[Tensor, "2"]:
    """The ends that hold `level` of the resampled means between them."""
    return torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))


def _binomial_tail(successes: int, trials: int, p: float) -> float:
    """The chance of that many successes or more."""
    k = torch.arange(successes, trials + 1, dtype=torch.float64)
    n = torch.tensor(float(trials), dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return float((ways + k * math.log(p) + (n - k) * math.log1p(-p)).logsumexp(0).exp())


def _bisect_rate(below: Callable[[float], bool]) -> float:
    """The rate up to which `below` holds, by halving its logit."""
    low, high = -60.0, 60.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        p = 1 / (1 + math.exp(-middle))
        low, high = (middle, high) if p < 1 and below(p) else (low, middle)
    return 1 / (1 + math.exp(-low))


def _log10(p: float) -> float:
    return math.log10(p) if p > 0 else -math.inf
