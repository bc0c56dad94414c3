"""The entropy law of a run: R = -a·e^H + b, fitted, with the reward that it foretells where no entropy is left."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from qredit.report.collect import RunData
from qredit.report.curves import choose_window
from qredit.stats.line_fit import fit_line

LEAST_STRETCHES, LEAST_FALL, GOOD_FIT = 5, 0.02, 0.8


@dataclass(frozen=True)
class EntropyLaw:
    """R = -a·e^H + b over stretches of a run.

    Attributes:
        a: reward units; above 0 where reward rose as entropy fell.
        b: reward units.
        r2: share of the variance of R that it explains.
        stretches: points of the fit.
        lowest: the least entropy among them, nats a token.
    """

    a: float
    b: float
    r2: float
    stretches: int
    lowest: float

    @property
    def ceiling(self) -> float:
        """R at H = 0: -a + b."""
        return self.b - self.a

    @property
    def is_good(self) -> bool:
        """Whether reward rose as entropy fell, and the line explains most of it."""
        return self.a > 0 and self.r2 >= GOOD_FIT


def fit_entropy_law(run: RunData) -> EntropyLaw | None:
    """The law of a run; None with fewer than five stretches, or where their entropies differ by less than 0.02 nats.

    A step's reward varies with its questions. So the points are means over stretches of a twentieth of the logged
    steps, at least 5, that do not overlap.

    Args:
        run: with the metrics `reward` and `entropy`.

    Source: arXiv 2505.22617, eq. 1: a validation reward there, that of the training rollouts here.
    """
    known = [
        (entropy, reward)
        for entropy, reward in zip(_each(run, "entropy"), _each(run, "reward"), strict=True)
        if entropy is not None and reward is not None
    ]
    over = choose_window(len(known))
    cuts = [known[start : start + over] for start in range(0, len(known) - over + 1, over)]
    entropies = [statistics.fmean(h for h, _ in cut) for cut in cuts]
    if len(cuts) < LEAST_STRETCHES or max(entropies) - min(entropies) < LEAST_FALL:
        return None
    rewards = [statistics.fmean(r for _, r in cut) for cut in cuts]
    x = torch.tensor([math.exp(h) for h in entropies], dtype=torch.float64)
    line = fit_line(x, torch.tensor(rewards, dtype=torch.float64))
    return EntropyLaw(-line.slope, line.intercept, line.r2, len(cuts), min(entropies))


def tell_entropy_law(run: RunData) -> Iterator[str]:
    """The law in words; without its ceiling where it does not hold."""
    law = fit_entropy_law(run)
    if law is None:
        return
    fitted = f"over {law.stretches} stretches, R² = {law.r2:.2f}"
    if law.a <= 0:
        yield f"Reward did not rise as entropy fell ({fitted}): the entropy law R = -a·e^H + b says nothing here."
    elif not law.is_good:
        yield (
            f"The entropy law R = -a·e^H + b fits poorly ({fitted}), so no ceiling is read from it: something else "
            "than entropy moved the reward."
        )
    else:
        yield (
            f"The entropy law R = {law.b:.3g} - {law.a:.3g}·e^H ({fitted}) foretells a mean reward of "
            f"{law.ceiling:.3g} where no entropy is left; the lowest seen is {law.lowest:.2g} nats a token. It is a "
            "line drawn on, not a bound."
        )


def _each(run: RunData, name: str) -> Sequence[float | None]:
    """A metric of every entry, None where it has none."""
    steps, values = run.series(name)
    by_step = dict(zip(steps, values, strict=True))
    return [by_step.get(int(entry["step"])) for entry in run.metrics]
