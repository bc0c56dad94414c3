"""Learning curves as a plot in a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qredit.utils.atomic_files import atomic_write

_DASHES = ("-", "--", "-", "-.", ":")


def plot_curves(arms: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, title: str) -> None:
    """Success rate of the training rollouts, and how likely the gold answer is, against the step.

    Args:
        arms: by label, one result for each seed, with `curve` (shares) and `p_hat` (median log10 p̂, or None).
        path: the file.
        title: heading.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (success, likelihood) = pyplot.subplots(1, 2, figsize=(11, 4.2), dpi=150)
    colours = pyplot.get_cmap("tab10")
    for number, (label, seeds) in enumerate(arms.items()):
        look = {"color": colours(number % 10), "linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.8}
        for arm in seeds:
            named = {"label": label} if arm is seeds[0] else {}
            steps = range(1, len(arm["curve"]) + 1)
            success.plot(steps, [100 * value for value in smooth(arm["curve"])], **look, **named)
            if all(value is not None for value in arm["p_hat"]):
                likelihood.plot(steps, arm["p_hat"], **look)
    success.set(xlabel="step", ylabel="successful training rollouts (%)", ylim=(-3, 103))
    likelihood.set(xlabel="step", ylabel="log10 p(gold answer), median")
    for axes in (success, likelihood):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.legend(loc="lower center", ncols=min(len(arms), 8), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    with atomic_write(path) as aside:
        figure.savefig(aside)
    pyplot.close(figure)


def smooth(values: Sequence[float], window: int = 5) -> list[float]:
    """The mean of each value and those before it within the window."""
    return [sum(values[max(0, n - window + 1) : n + 1]) / min(window, n + 1) for n in range(len(values))]
