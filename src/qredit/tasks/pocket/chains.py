"""Chains of facts: a person lives in a city, the city lies in a country, the country belongs to a league."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from qredit.tasks.base import Split
from qredit.tasks.pocket.language import FACTS, are_distinct, draw_names
from qredit.tasks.pocket.scene import assign_split


@dataclass(frozen=True)
class Fact:
    """subject, relation, object: "Tilo", " lives in ", "Kemo"."""

    subject: str
    relation: str
    object: str

    @property
    def sentence(self) -> str:
        """The fact in words."""
        return f"{self.subject}{self.relation}{self.object}."


@dataclass(frozen=True)
class Context:
    """Chains of facts with no syllable in common, and the order in which all their facts are told.

    Attributes:
        chains: each chain's facts, in the order of reasoning.
        told: every fact of every chain, shuffled.
    """

    chains: tuple[tuple[Fact, ...], ...]
    told: tuple[Fact, ...]


def draw_context(rng: random.Random, split: Split, chains: int, hops: int) -> Context:
    """A context whose every chain belongs to `split`.

    Args:
        rng: of the draws.
        split: train, validation or test.
        chains: how many.
        hops: facts of a chain.
    """
    drawn: list[tuple[Fact, ...]] = []
    taken: list[str] = []
    while len(drawn) < chains:
        names = draw_names(rng, hops + 1)
        if assign_split(names) == split and are_distinct([*taken, *names]):
            taken += names
            drawn.append(_linked(names))
    told = [fact for chain in drawn for fact in chain]
    rng.shuffle(told)
    return Context(tuple(drawn), tuple(told))


def _linked(names: Sequence[str]) -> tuple[Fact, ...]:
    hops = zip(names, FACTS, names[1:], strict=False)
    return tuple(Fact(subject, relation, object) for subject, relation, object in hops)
