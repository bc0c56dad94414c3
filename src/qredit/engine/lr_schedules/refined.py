"""The refinement of a linear decay by the gradient norms of an earlier run."""

import json
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from qredit.core.schedule import check_range
from qredit.engine.lr_schedules.protocol import LrSchedule
from qredit.utils.errors import QreditError

METRICS = "metrics.jsonl"
NORM = "grad_norm"


@dataclass(frozen=True)
class refined(LrSchedule):
    """The schedule that the gradient norms of an earlier run of the same kind call for.

        G̃ = the norms, each the median of the share `smooth` of all around it
        w_t = G̃_t^{-power},   η_t ∝ w_t Σ_{s>t} w_s,   the largest of them 1

    With equal norms that is the linear decay. Norms that are large at first make a warmup, and norms that grow make the
    end fall faster. So a warmup of the run's own is best left out (`--warmup 0`). Between the steps of the earlier run
    the schedule is a straight line, so that runs may differ in length.

    Args:
        run: folder of the earlier run, whose metrics.jsonl is read. It must still be there where a run is resumed.
        power: 2 where the earlier run and this one take steps along the gradient (SGD), 1 for Adam.
        smooth: share of the steps that a median runs over, 0 … 1.

    Raises:
        QreditError: a number outside these ranges.

    Source: arXiv 2310.07831, algorithm 1, and its official code (power 2, or 1 with the 1-norm for Adam; smooth 0.1;
    the first norm repeated before the first, the last ones reflected behind the last). Differences: a run logs the
    2-norm, which is read for Adam, too; and a step is added behind the last one, of its norm, so that none is taken at
    a rate of 0.
    """

    run: str
    power: float
    smooth: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.run, str) or not self.run:
            raise QreditError(f"refined: run must be the folder of a run, got {self.run!r}")
        check_range("power of refined", self.power, 0.0, 4.0)
        check_range("smooth of refined", self.smooth, 0.0, 1.0)

    def make(self) -> Callable[[float], float]:
        points = refine(read_norms(Path(self.run).expanduser()), self.power, self.smooth)

        def at(over: float) -> float:
            place = over * (len(points) - 1)
            before = min(int(place), len(points) - 2)
            return points[before] + (points[before + 1] - points[before]) * (place - before)

        return at


def read_norms(folder: Path) -> list[float]:
    """The gradient norm of each logged step of a run, in order.

    Raises:
        QreditError: there is no such run, or it logged fewer than two norms above 0.
    """
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise QreditError(f"refined: cannot read {folder / METRICS}: {error.strerror}") from None
    found: dict[int, float] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a last line that was cut off
        step, norm = (entry.get("step"), entry.get(NORM)) if isinstance(entry, dict) else (None, None)
        if isinstance(step, int) and isinstance(norm, int | float) and 0 < norm < float("inf"):
            found[step] = float(norm)
    if len(found) < 2:
        raise QreditError(f"refined: {folder / METRICS} has {len(found)} gradient norms above 0; two are needed")
    return [found[step] for step in sorted(found)]


def refine(norms: Sequence[float], power: float, smooth: float) -> list[float]:
    """The refined schedule: of T norms T + 1 points at equal distances, the last one 0.

    Args:
        norms: of the gradient, above 0, in the order of the steps.
        power: of a norm in its weight, with the sign turned.
        smooth: share of the steps that a median runs over.
    """
    weights = [norm**-power for norm in filter_median(norms, 2 * (int(smooth * len(norms)) // 2) + 1)]
    weights.append(weights[-1])
    tails = list(accumulate(reversed(weights)))[::-1]
    raw = [weight * tail for weight, tail in zip(weights, [*tails[1:], 0.0], strict=True)]
    top = max(raw)
    return [value / top for value in raw]


def filter_median(values: Sequence[float], width: int) -> list[float]:
    """The median of so many values around each; the first is repeated before it, the last ones are reflected.

    The values of the window stay sorted: at each step one goes and one comes.

    Args:
        values: in order.
        width: an odd number.
    """
    last, half = len(values) - 1, width // 2

    def at(place: int) -> float:
        return values[max(place if place <= last else 2 * last - place, 0)]

    window, found = sorted(at(near) for near in range(-half, half + 1)), []
    for place in range(last + 1):
        found.append(window[half])
        del window[bisect_left(window, at(place - half))]
        insort(window, at(place + half + 1))
    return found
