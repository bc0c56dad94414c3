"""How each pocket model is made: its size, its steps, how cold it is meant to be."""

import math
from dataclasses import dataclass

from pocket_models.behaviour import COLD
from qredit.pocket.models import LEVELS


@dataclass(frozen=True)
class Shape:
    """Layers, hidden size and heads; heads are `hidden / heads` wide, with half as many for keys and values."""

    layers: int
    hidden: int
    heads: int


@dataclass(frozen=True)
class Spec:
    """How a pocket model is made.

    Attributes:
        name: its folder's.
        task: the pocket task it is a base model for.
        coldness: -log10 of the p0 it is made for; a first gate of 0 leaves a model colder than that.
        learning: optimiser steps in which it learns to reason.
        settling: optimiser steps in which it takes up its habits; see `pocket_models.behaviour`.
        first_gate: the probability that the soft targets give an answer as asked at each gate while it learns.
    """

    name: str
    task: str
    coldness: int
    shape: Shape
    learning: int
    settling: int
    first_gate: float = 0.0

    @property
    def gate(self) -> float:
        """g, the probability that the soft targets give an answer as asked at each gate: p0 ≈ g² · COLD.own."""
        return min(0.99, math.sqrt(10.0**-self.coldness / COLD.own))


def _dial(level: int) -> Spec:
    """The model of a coldness. The coldest start nearer to it: far below its target a likelihood hardly rises."""
    first_gate = {8: 1e-3, 12: 1e-5}.get(level, 1e-6)
    return Spec(f"dial-{level}", "pocket-dial", level, SMALL, learning=2000, settling=800, first_gate=first_gate)


SMALL, LARGE = Shape(3, 64, 4), Shape(3, 96, 4)
SPECS = {
    spec.name: spec
    for spec in (
        Spec("hotpot", "pocket-hotpot", 12, LARGE, learning=2400, settling=500),
        Spec("musique", "pocket-musique", 12, LARGE, learning=3000, settling=500),
        Spec("finqa", "pocket-finqa", 12, LARGE, learning=3600, settling=500),
        *(_dial(level) for level in LEVELS),
    )
}
