"""The guide of a run whose objective leaves q to it: holds the controller, tells the objective of the next step."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from qredit.control.controller import Controller, Decision, Estimator, Groups, begin, restored
from qredit.control.objective import automatic, guided, may_move
from qredit.core.objective import Objective
from qredit.engine.state import GUIDE

LOOKED = 16
"""Prompts that are looked at before the first step, over all processes: two steps' worth where a step has eight."""


class Guide:
    """Steers `garl(q=auto())`: told what each step's groups show, it says with which estimator and q to go on.

    Every process is told the same and decides the same.

    Attributes:
        decisions: what was decided, in order.
    """

    name = GUIDE

    def __init__(self, objective: Objective) -> None:
        found = automatic(objective)
        assert found is not None
        self.objective, self.most = objective, found.start
        self.controller: Controller | None = None
        self.decisions: list[Decision] = []

    @property
    def begun(self) -> bool:
        """Whether it has seen anything yet."""
        return self.controller is not None

    @property
    def estimator(self) -> Estimator:
        """That of the next step."""
        return "garl" if self.controller is None else self.controller.estimator

    def now(self) -> Objective:
        """The objective of the next step."""
        return guided(self.objective, self.estimator, self.most if self.controller is None else self.controller.q)

    def decided(self) -> list[dict[str, Any]]:
        """Its decisions, as a log holds them."""
        return [one.told() for one in self.decisions]

    def begin(self, facts: Mapping[str, Tensor], m: int) -> Decision:
        """Choose the q of the first step from a look at some prompts."""
        self.controller, decision = begin(_groups(facts), m, self.most, may_move(self.objective))
        self.decisions.append(decision)
        return decision

    def see(self, step: int, facts: Mapping[str, Tensor]) -> Decision | None:
        """Take in what a step's groups showed; what is changed from the next step on, if anything."""
        assert self.controller is not None
        self.controller, decision = self.controller.see(step, _groups(facts))
        if decision is not None:
            self.decisions.append(decision)
        return decision

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        assert self.controller is not None
        return {"controller": self.controller.state(), "decisions": [asdict(one) for one in self.decisions]}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a `state_dict`."""
        self.controller = restored(state["controller"])
        self.decisions = [Decision(**one) for one in state["decisions"]]


def _groups(facts: Mapping[str, Tensor]) -> Groups:
    return Groups(*(tuple(facts[name].tolist()) for name in ("p_hat", "largest", "ess")))
