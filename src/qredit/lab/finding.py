"""What a measurement found: claims with their tolerances, short tables, curves to draw, a verdict in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Numbers = Sequence[float] | Tensor


@dataclass(frozen=True)
class Claim:
    """What a theorem says of some measured numbers, and how far they may lie from it.

    Attributes:
        text: the claim in words and formula.
        measured: the numbers found.
        expected: the theorem's, one for each.
        tolerance: the largest |measured - expected| that still counts as agreement.
        relative: take every difference as a share of |expected|.
    """

    text: str
    measured: tuple[float, ...]
    expected: tuple[float, ...]
    tolerance: float
    relative: bool = False

    @property
    def deviation(self) -> float:
        """The largest |measured - expected|; infinite if nothing was measured, NaN if a number is NaN."""
        if not self.measured:
            return float("inf")
        measured, expected = (torch.tensor(values, dtype=torch.float64) for values in (self.measured, self.expected))
        difference = (measured - expected).abs()
        return float((difference / expected.abs() if self.relative else difference).max())

    @property
    def holds(self) -> bool:
        """Whether every number lies within the tolerance."""
        return self.deviation <= self.tolerance

    def __str__(self) -> str:
        unit = " of it" if self.relative else ""
        word = "within" if self.holds else "FAILS, off by"
        return f"{self.text}: {word} {self.deviation:.2g}{unit} (tolerance {self.tolerance:g})"


@dataclass(frozen=True)
class Curve:
    """Points of a plot: `label` and `hue` (0 to 1) give the colour, `kind` the mark, or the dashes of a line.

    >>> Curve("q = 0.5", 0.5, "measured", (1e-3, 1e-2), (60.0, 19.0)).kind
    'measured'
    """

    label: str
    hue: float
    kind: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    line: bool = False


@dataclass(frozen=True)
class FindingPanel:
    """One pair of axes: labels with units, the curves, and which axes are logarithmic ("", "x" or "xy").

    `x_ticks` are the places of the marks on the x axis; empty leaves them to the drawing.
    """

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    log: Literal["", "x", "xy"] = "xy"
    x_ticks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A theorem measured.

    Attributes:
        theorem: what it says, in one line.
        claims: each part of it against measured numbers.
        tables: short tables by name, one frozen dataclass for each row.
        panels: what is drawn; the points are all the measured numbers.
        numbers: further results by name.
        notes: what could not be measured, and why.
    """

    theorem: str
    claims: tuple[Claim, ...]
    tables: Mapping[str, Sequence[Any]]
    panels: tuple[FindingPanel, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)

    @property
    def verdict(self) -> str:
        """One sentence: whether the measured numbers agree with the theorem, each claim with its deviation."""
        return f"{self.headline}: {'; '.join(map(str, self.claims))}."

    @property
    def headline(self) -> str:
        """The verdict without the claims that it rests on."""
        return f"Measured numbers and theorem {'agree' if self.agrees else 'DISAGREE'}"


def make_claim(
    text: str, measured: Numbers, expected: Numbers | float, tolerance: float, relative: bool = False
) -> Claim:
    """A claim about a list of numbers; one expected number stands for all of them.

    Args:
        text: what is claimed.
        measured: the numbers.
        expected: what each should be, or one number for all.
        tolerance: largest difference.
        relative: the difference is divided by the expected number.
    """
    found = torch.as_tensor(measured, dtype=torch.float64)
    wanted = torch.as_tensor(expected, dtype=torch.float64).expand_as(found)
    return Claim(text, tuple(found.tolist()), tuple(wanted.tolist()), tolerance, relative)


def make_curve(label: str, hue: float, kind: str, x: Numbers, y: Numbers, line: bool = False) -> Curve:
    """A curve of the points that are finite.

    Args:
        label: in the legend.
        hue: 0 … 1, place on the colour scale.
        kind: what the points are, in the legend; curves of one kind share marks or dashes.
        x: where each point lies.
        y: its height.
        line: joined by a line, else marks alone.
    """
    pairs = torch.stack([torch.as_tensor(values, dtype=torch.float64) for values in (x, y)])
    kept = pairs[:, pairs.isfinite().all(0)].tolist()
    return Curve(label, hue, kind, tuple(kept[0]), tuple(kept[1]), line)


def make_q_curve(q: float, kind: str, x: Numbers, y: Numbers, line: bool = False) -> Curve:
    """A curve that belongs to one commitment.

    Args:
        q: commitment, 0 … 1.
        kind: what the points are, in the legend; curves of one kind share marks or dashes.
        x: where each point lies.
        y: its height.
        line: joined by a line, else marks alone.
    """
    return make_curve(f"q = {q:g}", q, kind, x, y, line)
