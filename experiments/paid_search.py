"""The pocket search, in which a search is paid, too: what rules over rewards of turns need."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qredit.environments.pocket.search import PocketSearch, find_query
from qredit.environments.protocol import Step

PAID = 0.25


class PaidSearch(PocketSearch):
    """`PAID` for a search that is the first to read a document with the answer, beside the reward of the answer."""

    paid = False

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """As the search without pay."""
        self.paid = False
        return super().reset(example, seed)

    def step(self, action: str) -> Step:
        """What is found, with its pay."""
        step = super().step(action)
        if self.paid or find_query(action) is None or not any(gold in str(step.observation) for gold in self.golds):
            return step
        self.paid = True
        return replace(step, reward=PAID)
