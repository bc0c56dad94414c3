"""Plots of the lab: measured points on the theorem's lines, one colour for each curve, one mark for each kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qredit.lab.finding import Curve, FindingPanel
from qredit.utils.atomic_files import atomic_write

_MARKS: Sequence[dict[str, Any]] = (
    {"marker": "o", "markersize": 4.5},
    {"marker": "o", "markersize": 9, "markerfacecolor": "none"},
    {"marker": "^", "markersize": 7, "markerfacecolor": "none"},
    {"marker": "s", "markersize": 5},
)
_DASHES = ("-", (0, (5, 3)), ":")
_GREY = "0.35"
_DARKEST_YELLOW = 0.85  # viridis beyond it is too pale for a line on white


def plot_panels(panels: Sequence[FindingPanel], path: Path) -> None:
    """Draw the panels side by side, four of them two by two, under one legend."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 2 if len(panels) in (2, 4) else len(panels)
    rows = len(panels) // columns
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.7 * columns, 3.9 * rows + 0.8), dpi=120, squeeze=False)
    looks = _choose_styles([curve for panel in panels for curve in panel.curves])
    colours = pyplot.get_cmap("viridis")
    for axis, panel in zip(axes.flat, panels, strict=True):
        for curve in panel.curves:
            colour = colours(_DARKEST_YELLOW * curve.hue)
            axis.plot(curve.x, curve.y, color=colour, **looks[curve.kind], zorder=2 if curve.line else 3)
        _dress(axis, panel)
    _legend(figure, panels, looks, colours)
    with atomic_write(path) as aside:
        figure.savefig(aside)
    pyplot.close(figure)


def _choose_styles(curves: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """How every kind is drawn: lines by their dashes, points by their marks, in the order in which they come."""
    lines = dict.fromkeys(curve.kind for curve in curves if curve.line)
    points = dict.fromkeys(curve.kind for curve in curves if not curve.line)
    dashed = {kind: {"linestyle": _DASHES[number], "linewidth": 1.4} for number, kind in enumerate(lines)}
    marked = {kind: {"linestyle": "none", **_MARKS[number]} for number, kind in enumerate(points)}
    return dashed | marked


def _dress(axis: Any, panel: FindingPanel) -> None:
    axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    if "x" in panel.log:
        axis.set_xscale("log")
    if panel.x_ticks:
        axis.set_xticks(panel.x_ticks, [f"{tick:g}" for tick in panel.x_ticks])
        axis.set_xticks([], minor=True)
    if "y" in panel.log:
        axis.set_yscale("log")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, panels: Sequence[FindingPanel], looks: dict[str, dict[str, Any]], colours: Any) -> None:
    """Curves by colour in a first row, kinds by mark in a second."""
    from matplotlib.lines import Line2D

    hues = {curve.label: curve.hue for panel in panels for curve in panel.curves}
    names = [
        Line2D([], [], color=colours(_DARKEST_YELLOW * hue), linewidth=4, label=name) for name, hue in hues.items()
    ]
    kinds = [Line2D([], [], color=_GREY, **look, label=kind) for kind, look in looks.items()]
    placed = {"frameon": False, "fontsize": 9, "loc": "lower center"}
    figure.legend(handles=names, ncols=len(names), bbox_to_anchor=(0.5, 0.3 / figure.get_figheight()), **placed)
    figure.legend(handles=kinds, ncols=len(kinds), bbox_to_anchor=(0.5, 0.0), **placed)
    figure.tight_layout(rect=(0, 0.65 / figure.get_figheight(), 1, 1))
