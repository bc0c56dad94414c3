"""Prompts drawn from the whole data set: the further prompts of dynamic sampling, where the order is the plain one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qredit.data.prompt_sampler import GroupStatistics
from qredit.utils.seed import derive_seed


class UniformPrompts:
    """Every prompt with the same probability in each draw, whatever came before it.

    The draws are a function of (seeds, number of the call, share), where each process has a share.

    Args:
        prompts: size of the data set.
        seeds: of these draws: that of the run and the number of the generation.
        shares: how many parts of one size `next` gives, one behind the other.
    """

    name = "uniform"

    def __init__(self, prompts: int, seeds: Sequence[int], shares: int = 1) -> None:
        self.prompts, self.seeds, self.shares = prompts, tuple(seeds), shares
        self.calls = 0

    def next(self, n: int) -> list[int]:
        """n draws, a multiple of the number of shares."""
        self.calls += 1
        return [index for share in range(self.shares) for index in self._draws(n // self.shares, share)]

    def observe(self, groups: Sequence[GroupStatistics]) -> None:
        """The draws stay as they are."""

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]

    def _draws(self, count: int, share: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(*self.seeds, self.calls, share))
        return torch.randint(self.prompts, (count,), generator=generator).tolist()  # type: ignore[no-any-return]
