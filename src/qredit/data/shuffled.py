"""The plain order: every epoch visits all prompts, by a permutation of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qredit.data.prompt_sampler import GroupStatistics
from qredit.utils.errors import QreditError
from qredit.utils.seed import derive_seed

SHUFFLED = "shuffled"


class ShuffledPrompts:
    """All prompts, epoch by epoch; what they showed changes nothing.

    The permutation is a function of (seed, epoch), so that a run which is resumed in its second epoch goes on in that
    epoch's order. Prompts at the end of an epoch that are fewer than `next` asks for are left to another epoch.

    Args:
        prompts: size of the data set.
        seed: that of the run.
        shuffle: False visits them as they stand.
    """

    name = SHUFFLED

    def __init__(self, prompts: int, seed: int, shuffle: bool = True) -> None:
        self.prompts, self.seed, self.shuffle = prompts, seed, shuffle
        self.epoch = self.place = 0
        self._order = self._permutation()

    def next(self, n: int) -> list[int]:
        """The next n of this epoch, or the first n of the one after it.

        Raises:
            QreditError: more than there are.
        """
        if n > self.prompts:
            raise QreditError(f"{n} different prompts are asked for, but the data set has {self.prompts}")
        if self.place + n > self.prompts:
            self._go_to(self.epoch + 1, 0)
        self.place += n
        return self._order[self.place - n : self.place]

    def observe(self, groups: Sequence[GroupStatistics]) -> None:
        """The order stays as it is."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "place": self.place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._go_to(state["epoch"], state["place"])

    def _go_to(self, epoch: int, place: int) -> None:
        self.epoch, self.place = epoch, place
        self._order = self._permutation()

    def _permutation(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.prompts))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return torch.randperm(self.prompts, generator=generator).tolist()  # type: ignore[no-any-return]
