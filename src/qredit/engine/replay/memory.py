"""The rollouts that a run keeps to learn from them again, and the statistics of its last groups."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qredit.engine.replay.kept_credit import KEPT_CREDIT
from qredit.engine.replay.protocol import Remembered, Replayed, ReplayRule
from qredit.engine.replay.rows import KeptRow, cut_rows
from qredit.engine.step import ScoredMicrobatch
from qredit.utils.errors import QreditError


class ReplayMemory:
    """What a rule of replay chooses from; a `Stateful`.

    Rollouts are taken up while their generation is learned from, and may be chosen when a later one is used up.

    Args:
        rule: says which rollouts are kept, and for how long.
        needs: batch fields that the rule's loss reads. Rows are kept with their coefficients if these are among them.

    Attributes:
        kept: rollouts of earlier generations, oldest first.
    """

    name = "replay"

    def __init__(self, rule: ReplayRule, needs: Collection[str] = ()) -> None:
        self.rule = rule
        self._keeps_credit = KEPT_CREDIT in needs
        self._begin()

    def _begin(self) -> None:
        self.kept: list[KeptRow] = []
        self._fresh: list[KeptRow] = []
        self._groups, self._fresh_groups = torch.zeros(0, 2).double(), torch.zeros(0, 2).double()

    def observe(self, learned: ScoredMicrobatch) -> None:
        """Take up a micro-batch that was learned from for the first time.

        Args:
            learned: whole groups.
        """
        batch = learned.batch
        known = learned.credited
        credited = learned.objective.evaluate(batch, learned.state) if known is None else known
        credit = credited.value if self._keeps_credit else None
        self._fresh += cut_rows(learned.rows, self.rule.keep(batch, credited), credit)
        reward = batch.require("reward", "replay").double()
        scored = ~reward.isnan()
        for group in batch.group.unique():
            own = reward[(batch.group == group) & scored]
            if len(own):
                told = torch.stack([own.mean(), own.std(correction=0)])[None].cpu()
                self._fresh_groups = torch.cat([self._fresh_groups, told])

    def choose(self, seed: int, step: int) -> tuple[list[KeptRow], Replayed] | None:
        """What is learned from again now. What the rule chose from is dropped, unless it says that it stays.

        Args:
            seed: of what the rule draws.
            step: number of the optimiser step that the generation ends with.
        """
        rewards = torch.tensor([one.reward for one in self.kept], dtype=torch.float64)
        ages = torch.tensor([step - one.step for one in self.kept], dtype=torch.long)
        chosen = self.rule.choose(Remembered(rewards, ages, *self._groups.unbind(1)), seed)
        if chosen is None:
            return None
        rows = [self.kept[place] for place in chosen.places.tolist()]
        if not chosen.stays:
            self.kept = []
        return rows, chosen

    def end_generation(self, step: int) -> None:
        """Keep what was taken up, and drop what is too old.

        Args:
            step: number of the optimiser step that the generation ended with.
        """
        fresh = [replace(one, step=step) for one in self._fresh]
        self.kept = [one for one in self.kept if step - one.step <= self.rule.tolerance] + fresh
        groups = torch.cat([self._groups, self._fresh_groups])
        self._groups = groups[max(len(groups) - self.rule.groups, 0) :]  # of 0 groups nothing, which [-0:] is not
        self._fresh, self._fresh_groups = [], torch.zeros(0, 2).double()

    def state_dict(self) -> dict[str, Any]:
        return {
            "rule": repr(self.rule),
            "kept": [one.state_dict() for one in self.kept],
            "fresh": [one.state_dict() for one in self._fresh],
            "groups": self._groups,
            "fresh_groups": self._fresh_groups,
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        if not state:
            raise QreditError("the checkpoint holds nothing to replay: its run began without replay")
        if state["rule"] != repr(self.rule):
            raise QreditError(f"the checkpoint was trained with replay {state['rule']}, not with {self.rule!r}")
        self.kept = [KeptRow.load(one) for one in state["kept"]]
        self._fresh = [KeptRow.load(one) for one in state["fresh"]]
        self._groups, self._fresh_groups = _to_cpu(state["groups"]), _to_cpu(state["fresh_groups"])


def _to_cpu(groups: Tensor) -> Tensor:
    return groups.cpu().double()
