"""Learning curves: a line of blocks for the terminal, a plot for a file."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

BLOCKS = " ▁▂▃▄▅▆▇█"


def blocks(values: Sequence[float], width: int = 40) -> str:
    """Values in [0, 1] as `width` blocks, each the mean of its share of the values.

    >>> blocks([0.0, 0.5, 1.0], width=3)
    ' ▄█'
    """
    if not values:
        return ""
    columns = min(width, len(values))
    bounds = [round(column * len(values) / columns) for column in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    return "".join(BLOCKS[round(min(max(mean, 0.0), 1.0) * (len(BLOCKS) - 1))] for mean in means)


def plot_curves(curves: Mapping[str, Sequence[Sequence[float]]], path: Path, title: str) -> None:
    """Success rate of the training rollouts against the step, one colour for each label, one line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=150)
    colours = pyplot.get_cmap("viridis")
    marks = ("-", "--", "-.", ":")
    for number, (label, seeds) in enumerate(curves.items()):
        colour = colours(number / max(len(curves) - 1, 1) * 0.9)
        for seed, values in enumerate(seeds):
            axes.plot(
                range(1, len(values) + 1),
                [100 * v for v in smoothed(values)],
                marks[number % len(marks)],
                color=colour,
                label=label if seed == 0 else None,
                linewidth=1.8,
                alpha=0.9,
            )
    axes.set(xlabel="step", ylabel="successful training rollouts (%)", title=title, ylim=(-2, 102))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def smoothed(values: Sequence[float], window: int = 5) -> list[float]:
    """The mean of each value and those before it within the window."""
    return [sum(values[max(0, n - window + 1) : n + 1]) / min(window, n + 1) for n in range(len(values))]
