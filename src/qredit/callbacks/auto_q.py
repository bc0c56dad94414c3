"""The guide of a run whose objective leaves q to it: holds the controller, tells the objective of the next step."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from qredit.control.auto_objective import can_switch_to_paft, find_auto, resolve_objective
from qredit.control.controller import Decision, Estimator, GroupStats, QController, restore_controller, start_controller
from qredit.core.objective import Objective
from qredit.engine.run_state import GUIDE
from qredit.utils.former_names import former_names

NUM_INITIAL_PROMPTS = 16
"""Prompts that are looked at before the first step, over all processes: two steps' worth where a step has eight."""


class AutoQ:
    """Steers `garl(q=auto())`: told what each step's groups show, it says with which estimator and q to go on.

    Every process is told the same and decides the same.

    Attributes:
        decisions: what was decided, in order.
    """

    name = GUIDE

    def __init__(self, objective: Objective) -> None:
        found = find_auto(objective)
        assert found is not None
        self.objective, self.most = objective, found.start
        self.controller: QController | None = None
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
        return resolve_objective(
            self.objective, self.estimator, self.most if self.controller is None else self.controller.q
        )

    def list_decisions(self) -> list[dict[str, Any]]:
        """Its decisions, as a log holds them."""
        return [one.told() for one in self.decisions]

    def begin(self, facts: Mapping[str, Tensor], m: int) -> Decision:
        """Choose the q of the first step from a look at some prompts."""
        self.controller, decision = start_controller(_groups(facts), m, self.most, can_switch_to_paft(self.objective))
        self.decisions.append(decision)
        return decision

    def observe(self, step: int, facts: Mapping[str, Tensor]) -> Decision | None:
        """Take in what a step's groups showed; what is changed from the next step on, if anything."""
        assert self.controller is not None
        if "p_hat" not in facts:  # no row had a right answer
            return None
        self.controller, decision = self.controller.observe(step, _groups(facts))
        if decision is not None:
            self.decisions.append(decision)
        return decision

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        assert self.controller is not None
        return {"controller": self.controller.state(), "decisions": [asdict(one) for one in self.decisions]}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a `state_dict`."""
        self.controller = restore_controller(state["controller"], self.most)
        self.decisions = [Decision(**one) for one in state["decisions"]]


def _groups(facts: Mapping[str, Tensor]) -> GroupStats:
    return GroupStats(*(tuple(facts[name].tolist()) for name in ("p_hat", "largest", "ess")))


__getattr__ = former_names(__name__, {"Guide": "AutoQ"})
