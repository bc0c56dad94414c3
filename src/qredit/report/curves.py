"""The curves of a report: which numbers, over which stretch they are averaged, with which interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from qredit.report.chart import ChartLine, ChartPanel
from qredit.report.collect import PREFERRED, RunData
from qredit.stats.interval import Interval, normal_interval


def choose_window(entries: int) -> int:
    """How many logged steps a moving mean covers: a twentieth of them, at least 5."""
    return max(5, entries // 20)


def compute_moving_means(values: Sequence[float | None], over: int) -> list[Interval | None]:
    """The mean of each value and those before it, with how the steps differ; None where there is none among them."""
    return [_mean_of(values[max(0, end - over) : end]) for end in range(1, len(values) + 1)]


def _mean_of(values: Sequence[float | None]) -> Interval | None:
    known = [value for value in values if value is not None]
    return normal_interval(known) if known else None


def compute_first_and_last(run: RunData, name: str) -> tuple[Interval, Interval] | None:
    """A metric over the first and over the last stretch of a run; None where it was not logged."""
    _, values = run.series(name)
    over = choose_window(len(values))
    first, last = _mean_of(values[:over]), _mean_of(values[-over:])
    return None if first is None or last is None else (first, last)


def make_panels(runs: Sequence[RunData]) -> list[ChartPanel]:
    """The panels that at least one run has numbers for."""
    smooth = "Moving mean over a twentieth of the logged steps, at least 5."
    made = [
        ChartPanel(
            "Success of the training rollouts",
            "mean reward (%)",
            _lines(runs, "reward", scale=100.0, band=True),
            f"{smooth} Shaded: 95 % interval from how the steps within it differ.",
            (0.0, 100.0) if _is_share(runs) else None,
        ),
        ChartPanel(
            "Loss of the demonstrations",
            "nats a token",
            _lines([_without_rollouts(run) for run in runs], "loss", band=True),
            "Supervised fine-tuning: mean negative log-likelihood of the completions that are shown.",
        ),
        ChartPanel(
            "Chosen over rejected",
            "pairs (%)",
            _lines(runs, PREFERRED, scale=100.0, band=True),
            "Pairs of a step whose chosen rollout gained more likelihood than the rejected one; 0 at the first step.",
            (0.0, 100.0),
        ),
        ChartPanel(
            "Likelihood of the gold answer",
            "p̂ (log axis)",
            [line for place, run in enumerate(runs) for line in _fan(place, run)],
            "Mean over a group's rationales. Line: median over the groups of a step; shaded: 10 % to 90 % quantile.",
            decades=True,
        ),
        ChartPanel(
            "Effective reward, largest of a step",
            "a / M^q (no unit)",
            _lines(runs, "effective_reward/max"),
            "Figure 3 of arXiv 2604.25907: 1 where one rationale carries its whole group.",
        ),
        ChartPanel(
            "Centred weight, largest of a step",
            "c / M^q (no unit)",
            _lines(runs, "centred_weight/max"),
            "What the leave-one-out baseline leaves of the effective reward on rationale tokens.",
        ),
        ChartPanel("Entropy", "nats a token", _lines(runs, "entropy"), "Of the sampled tokens that were scored."),
        ChartPanel(
            "Covariance of coefficient and log-probability",
            "coefficient × nats",
            _lines(runs, "coefficient/covariance"),
            "Over the sampled tokens of a step. Entropy falls while it is positive (arXiv 2505.22617).",
        ),
        ChartPanel("Completion length", "tokens", _lines(runs, "completions/mean_length"), "Mean over the rollouts."),
        ChartPanel(
            "Effective sample size of the weights",
            "rollouts of a group",
            _lines(runs, "weights/ess"),
            "(Σw)² / Σw², mean over groups: 1 where a single rationale carries all.",
        ),
        ChartPanel(
            "Commitment", "q (no unit)", _lines(runs, "q", smooth=False), "0: reward; 1: likelihood.", (0.0, 1.0)
        ),
    ]
    return [panel for panel in made if panel.lines]


def _without_rollouts(run: RunData) -> RunData:
    """The run, or an empty one where it has rollouts or pairs: their loss is no likelihood."""
    return replace(run, metrics=()) if run.series("reward")[0] or run.is_preference else run


def _is_share(runs: Sequence[RunData]) -> bool:
    values = [value for run in runs for value in run.series("reward")[1] if value is not None]
    return all(0.0 <= value <= 1.0 for value in values)


def _lines(
    runs: Sequence[RunData], name: str, scale: float = 1.0, smooth: bool = True, band: bool = False
) -> list[ChartLine]:
    found = []
    for place, run in enumerate(runs):
        steps, values = run.series(name)
        if not steps:
            continue
        means = compute_moving_means(values, choose_window(len(values)) if smooth else 1)
        found.append(
            ChartLine(
                run.name,
                place,
                steps,
                _each(means, lambda m: scale * m.value),
                _each(means, lambda m: scale * m.low if math.isfinite(m.low) else None) if band else None,
                _each(means, lambda m: scale * m.high if math.isfinite(m.high) else None) if band else None,
            )
        )
    return found


def _each(means: Sequence[Interval | None], take: Callable[[Interval], float | None]) -> list[float | None]:
    return [None if mean is None else take(mean) for mean in means]


def _fan(place: int, run: RunData) -> list[ChartLine]:
    steps, median = run.series("p_hat/log10_q50")
    if not steps:
        return []
    low, high = (dict(zip(*run.series(f"p_hat/log10_q{level}"), strict=True)) for level in (10, 90))
    return [ChartLine(run.name, place, steps, median, [low.get(s) for s in steps], [high.get(s) for s in steps])]
