"""Line charts and bars as SVG text: no library, no script; colours come from the page's style sheet."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from qredit.utils.plain import one_line

COLOURS, DASHES = 7, 4  # looks that page.css knows
_WIDTH, _HEIGHT = 520, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 10, 8, 38
_POINTS = 300  # of a line at most
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """A curve with its band, None where there is no value; `look` chooses colour and dashes."""

    label: str
    look: int
    x: Sequence[float]
    y: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True)
class Panel:
    """A chart against the step.

    Attributes:
        bounds: of the y axis; None fits the values.
        decades: y holds powers of ten, and the axis shows them as such.
    """

    title: str
    y_label: str
    lines: Sequence[Line]
    note: str = ""
    bounds: tuple[float, float] | None = None
    decades: bool = False


def look_of(place: int) -> str:
    """The classes of the run at this place."""
    return f"c{place % COLOURS} d{place % DASHES}"


def draw(panel: Panel) -> str:
    """The panel as an <svg> element."""
    lines = [_thinned(line) for line in panel.lines]
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for values in (line.y, line.low or (), line.high or ()) for y in values if y is not None]
    x_axis = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(*(panel.bounds or _roomy(min(ys), max(ys))), _HEIGHT - _BOTTOM, _TOP)
    told = "; ".join(f"{line.label}: {_last(line, panel.decades)}" for line in panel.lines)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{_text(panel.title)}</title>",
        f"<desc>{_text(panel.y_label)} against the step. Last values: {_text(told)}</desc>",
        *_grid(x_axis, y_axis, panel),
        *(_band(line, x_axis, y_axis) for line in lines),
        *(_path(line, x_axis, y_axis) for line in lines),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def bars(rows: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """A stacked bar for each row, its parts in the order of their names' first appearance, with their values."""
    total = max((sum(parts.values()) for parts in rows.values()), default=0.0) or 1.0
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    height = 22 * len(rows) + 4
    drawn = [f'<svg class="bars" viewBox="0 0 {_WIDTH} {height}" role="img">']
    for number, (label, parts) in enumerate(rows.items()):
        left, top = 0.0, 22 * number + 2
        told = ", ".join(f"{name} {value:.3g} {unit}" for name, value in parts.items())
        drawn.append(f"<g><title>{_text(f'{label}: {told}')}</title>")
        for name, value in parts.items():
            width = _WIDTH * value / total
            drawn.append(
                f'<rect class="part p{names.index(name)}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="18"/>'
            )
            left += width
        drawn.append("</g>")
    return "\n".join([*drawn, "</svg>"])


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


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers between two values: at most about `most`, steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or 1.0
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _roomy(low: float, high: float) -> tuple[float, float]:
    """Bounds a little wider than the values; around a single value, a little room."""
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return (0.0 if 0 <= low <= 0.3 * high else low - room), high + room


def _grid(x_axis: _Axis, y_axis: _Axis, panel: Panel) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value in ticks(y_axis.low, y_axis.high, whole=panel.decades):
        y = y_axis(value)
        label = "10" + f"{value:.0f}".translate(_RAISED) if panel.decades else f"{value:.6g}"
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{y}" text-anchor="end" dominant-baseline="middle">{label}</text>'
    for value in ticks(x_axis.low, x_axis.high, whole=True):
        x = x_axis(value)
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{x}" y="{bottom + 14}" text-anchor="middle">{value:.0f}</text>'
    middle = (_TOP + bottom) / 2
    yield f'<text class="axis" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">optimiser step</text>'
    yield (
        f'<text class="axis" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
        f"{_text(panel.y_label)}</text>"
    )


def _path(line: Line, x_axis: _Axis, y_axis: _Axis) -> str:
    drawn = " ".join(
        "M" + "L".join(f"{x_axis(x)},{y_axis(y)}" for x, y in stretch) for stretch in _stretches(line.x, line.y)
    )
    dots = "".join(
        f'<circle class="dot" cx="{x_axis(stretch[0][0])}" cy="{y_axis(stretch[0][1])}" r="2.5"/>'
        for stretch in _stretches(line.x, line.y)
        if len(stretch) == 1
    )
    return f'<g class="line {look_of(line.look)}"><title>{_text(line.label)}</title><path d="{drawn}"/>{dots}</g>'


def _band(line: Line, x_axis: _Axis, y_axis: _Axis) -> str:
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
    return f'<path class="band {look_of(line.look)}" d="{" ".join(areas)}"/>' if areas else ""


def _stretches(x: Sequence[float], y: Values) -> list[list[tuple[float, float]]]:
    """Runs of neighbouring points that have a value."""
    found: list[list[tuple[float, float]]] = [[]]
    for place, value in zip(x, y, strict=True):
        if value is None:
            found.append([])
        else:
            found[-1].append((place, value))
    return [stretch for stretch in found if stretch]


def _thinned(line: Line) -> Line:
    """At most some hundred points, spread evenly, the last one among them."""
    every = math.ceil(len(line.x) / _POINTS)
    if every <= 1:
        return line

    def few(values: Values) -> list[float | None]:
        return list(reversed(list(values)[::-1][::every]))

    x = [value for value in few(line.x) if value is not None]
    low, high = (None if values is None else few(values) for values in (line.low, line.high))
    return Line(line.label, line.look, x, few(line.y), low, high)


def _last(line: Line, decades: bool) -> str:
    value = next((y for y in reversed(line.y) if y is not None), None)
    return "none" if value is None else f"10^{value:.1f}" if decades else f"{value:.4g}"


def _text(value: str) -> str:
    return escape(one_line(value))
