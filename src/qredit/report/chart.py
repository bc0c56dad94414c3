"""Line charts and bars as SVG: places are computed here, the elements stand in templates.

Colours and dashes are classes of the page's style sheet. Matplotlib's SVG was tried: it is four times as large, takes a
second to import, has no titles to hover over, and writes its colours into `style` attributes, which the page's policy
forbids and its dark theme cannot change.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from markupsafe import Markup

from qredit.report.render import render
from qredit.utils.sanitize import to_one_line

COLOURS, DASHES = 7, 4  # looks that page.css knows
_POINTS = 300  # of a line at most
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Values = Sequence[float | None]


@dataclass(frozen=True)
class ChartLine:
    """A curve with its band, None where there is no value; `look` chooses colour and dashes."""

    label: str
    look: int
    x: Sequence[float]
    y: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True)
class ChartPanel:
    """A chart against the step.

    Attributes:
        bounds: of the y axis; None fits the values.
        decades: y holds powers of ten, and the axis shows them as such.
    """

    title: str
    y_label: str
    lines: Sequence[ChartLine]
    note: str = ""
    bounds: tuple[float, float] | None = None
    decades: bool = False


def make_style_class(place: int) -> str:
    """The classes of the run at this place."""
    return f"c{place % COLOURS} d{place % DASHES}"


def draw_panel(panel: ChartPanel) -> Markup:
    """The panel as an <svg> element."""
    lines = [_thin(line) for line in panel.lines]
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for values in (line.y, line.low or (), line.high or ()) for y in values if y is not None]
    x_axis = _Axis(min(xs), max(xs), _FRAME.left, _FRAME.right)
    y_axis = _Axis(*(panel.bounds or _widen_bounds(min(ys), max(ys))), _FRAME.bottom, _FRAME.top)
    last = "; ".join(f"{line.label}: {_last(line, panel.decades)}" for line in panel.lines)
    return render(
        "chart.svg",
        frame=_FRAME,
        title=to_one_line(panel.title),
        described=to_one_line(f"{panel.y_label} against the step. Last values: {last}"),
        y_label=to_one_line(panel.y_label),
        x_ticks=[_Tick(x_axis(value), f"{value:.0f}") for value in choose_ticks(x_axis.low, x_axis.high, whole=True)],
        y_ticks=[
            _Tick(y_axis(value), "10" + f"{value:.0f}".translate(_RAISED) if panel.decades else f"{value:.6g}")
            for value in choose_ticks(y_axis.low, y_axis.high, whole=panel.decades)
        ],
        lines=[_drawn(line, x_axis, y_axis) for line in lines],
    )


def draw_bars(rows: Mapping[str, Mapping[str, float]], unit: str) -> Markup:
    """A stacked bar for each row, its parts in the order of their names' first appearance, with their values."""
    total = max((sum(parts.values()) for parts in rows.values()), default=0.0) or 1.0
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    drawn = []
    for number, (label, parts) in enumerate(rows.items()):
        widths = {name: _FRAME.width * value / total for name, value in parts.items()}
        lefts = accumulate(widths.values(), initial=0.0)
        values = ", ".join(f"{name} {value:.3g} {unit}" for name, value in parts.items())
        placed = [
            {"number": names.index(name), "left": f"{left:.1f}", "width": f"{width:.1f}"}
            for (name, width), left in zip(widths.items(), lefts, strict=False)
        ]
        drawn.append({"title": to_one_line(f"{label}: {values}"), "top": 22 * number + 2, "parts": placed})
    return render("bars.svg", width=_FRAME.width, height=22 * len(rows) + 4, rows=drawn)


@dataclass(frozen=True)
class _Frame:
    """The size of a chart and the edges of its axes, in units of its view box; y grows downwards."""

    width: int = 520
    height: int = 250
    left: int = 56
    right: int = 510
    top: int = 8
    bottom: int = 212


_FRAME = _Frame()


@dataclass(frozen=True)
class _Tick:
    place: str
    label: str


@dataclass(frozen=True)
class _Drawn:
    """A line as the template writes it: path data, dots where a point stands alone, and the band's path data."""

    label: str
    look: str
    path: str
    dots: Sequence[tuple[str, str]]
    band: str


@dataclass(frozen=True)
class _Axis:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return f"{self.start + min(max(share, -0.02), 1.02) * (self.end - self.start):.1f}"


def choose_ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers between two values: at most about `most`, steps of 1, 2 or 5 times a power of ten.

    Args:
        low: the smaller value.
        high: the larger value.
        most: about how many.
        whole: whole numbers alone.
    """
    span = (high - low) or 1.0
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _widen_bounds(low: float, high: float) -> tuple[float, float]:
    """Bounds a little wider than the values; around a single value, a little room."""
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return (0.0 if 0 <= low <= 0.3 * high else low - room), high + room


def _drawn(line: ChartLine, x_axis: _Axis, y_axis: _Axis) -> _Drawn:
    stretches = [[(x_axis(x), y_axis(y)) for x, y in stretch] for stretch in _stretches(line.x, line.y)]
    return _Drawn(
        label=to_one_line(line.label),
        look=make_style_class(line.look),
        path=" ".join("M" + "L".join(f"{x},{y}" for x, y in stretch) for stretch in stretches),
        dots=[stretch[0] for stretch in stretches if len(stretch) == 1],
        band=_band(line, x_axis, y_axis),
    )


def _band(line: ChartLine, x_axis: _Axis, y_axis: _Axis) -> str:
    if line.low is None or line.high is None:
        return ""
    both = [(x, lo, hi) for x, lo, hi in zip(line.x, line.low, line.high, strict=True)]
    areas = []
    for known, group in groupby(both, key=lambda point: point[1] is not None and point[2] is not None):
        stretch = list(group)
        if known and len(stretch) > 1:
            there = [f"{x_axis(x)},{y_axis(hi)}" for x, _, hi in stretch if hi is not None]
            back = [f"{x_axis(x)},{y_axis(lo)}" for x, lo, _ in reversed(stretch) if lo is not None]
            areas.append("M" + "L".join([*there, *back]) + "Z")
    return " ".join(areas)


def _stretches(x: Sequence[float], y: Values) -> list[list[tuple[float, float]]]:
    """Runs of neighbouring points that have a value."""
    found: list[list[tuple[float, float]]] = [[]]
    for place, value in zip(x, y, strict=True):
        if value is None:
            found.append([])
        else:
            found[-1].append((place, value))
    return [stretch for stretch in found if stretch]


def _thin(line: ChartLine) -> ChartLine:
    """At most some hundred points, spread evenly, the last one among them."""
    every = math.ceil(len(line.x) / _POINTS)
    if every <= 1:
        return line

    def few(values: Values) -> list[float | None]:
        return list(reversed(list(values)[::-1][::every]))

    x = [value for value in few(line.x) if value is not None]
    low, high = (None if values is None else few(values) for values in (line.low, line.high))
    return ChartLine(line.label, line.look, x, few(line.y), low, high)


def _last(line: ChartLine, decades: bool) -> str:
    value = next((y for y in reversed(line.y) if y is not None), None)
    return "none" if value is None else f"10^{value:.1f}" if decades else f"{value:.4g}"
