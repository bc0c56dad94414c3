"""The objective of this moment of a run: the one given, or that of the last part that steers it, schedules read off."""

from collections.abc import Sequence
from dataclasses import dataclass

from qredit.core.objective import Objective
from qredit.engine.protocols import ObjectiveOverride


@dataclass(frozen=True)
class CurrentObjective:
    """Says which objective a step learns by.

    Attributes:
        given: the objective of the run.
        overrides: what may ask for another; later ones overrule earlier ones.
    """

    given: Objective
    overrides: Sequence[ObjectiveOverride] = ()

    def now(self) -> Objective:
        """The objective with its schedules: the one given, unless a part asks for another."""
        chosen = self.given
        for part in self.overrides:
            asked = part.now()
            chosen = chosen if asked is None else asked
        return chosen

    def at(self, progress: float) -> Objective:
        """The plain objective after this share of the run's steps."""
        return self.now().at(progress)
