"""The decorator of a finished method: how it was asked for, which family it is of, and how sure its formula is."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, ParamSpec

from qredit.core.objective import Objective
from qredit.objectives._official import OFFICIAL

P = ParamSpec("P")
Family = Literal["likelihood", "group", "token", "step", "penalty", "reward"]
Certainty = Literal["paper", "code", "notes", "own"]
Known = Literal["paper+code", "paper", "second-hand", "own"]


@dataclass(frozen=True)
class Method(Generic[P]):
    """A finished method: called with its hyper-parameters, it makes the Objective.

    Attributes:
        make: the function that states the method.
        family: what it changes: the likelihood continuum, group advantages, tokens, steps, added terms, rewards.
        source: where it was published, such as "arXiv 2604.25907".
        certainty: what its formula is known from: the paper's text, the authors' own code, others (their notes, or a
            port in their library), or our derivation.
        example: arguments, as text, for those that have no default: numbers to look at the method with, no advice.
    """

    make: Callable[P, Objective]
    family: Family
    source: str
    certainty: Certainty
    example: str = ""

    def __post_init__(self) -> None:
        for attribute in ("__name__", "__doc__", "__module__"):
            object.__setattr__(self, attribute, getattr(self.make, attribute))
        object.__setattr__(self, "__wrapped__", self.make)  # inspect.signature follows it

    @property
    def official(self) -> str | None:
        """The official code it was compared with, such as "owner/repo path@commit"; None where none was found."""
        return OFFICIAL.get(self.name)

    @property
    def known(self) -> Known:
        """Whether its formula was read at the source: in the paper, in official code too, or only with others."""
        if self.certainty in ("notes", "own"):
            return "second-hand" if self.certainty == "notes" else "own"
        return "paper+code" if self.certainty == "code" or self.official else "paper"

    @property
    def name(self) -> str:
        """As it is registered."""
        return self.make.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Objective:
        """The objective; its `text` is this call with arguments at their defaults left out: `garl(q=0.75)`."""
        signature = inspect.signature(self.make)
        given = signature.bind(*args, **kwargs).arguments
        shown = [f"{k}={v!r}" for k, v in given.items() if v != signature.parameters[k].default]
        return replace(self.make(*args, **kwargs), text=f"{self.name}({', '.join(shown)})")


def method(
    family: Family,
    source: str,
    certainty: Certainty,
    example: str = "",
) -> Callable[[Callable[P, Objective]], Method[P]]:
    """Make a `Method` of a function that returns an Objective."""
    return lambda make: Method(make, family, source, certainty, example)
