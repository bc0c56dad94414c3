"""The order in which prompts are visited: whole groups, a permutation of its own for every epoch."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback

from qredit.utils.seed import mix


class GroupOrder(Sampler[int]):
    """Indices of the data set, each repeated for its rollouts, generation by generation.

    Like TRL's RepeatSampler, with one difference: the permutation is a function of (seed, epoch) and not of how often
    the sampler was iterated, so that a run resumed in its second epoch goes on in that epoch's order.

    Args:
        prompts: size of the data set; prompts that do not fill a generation are left to another epoch.
        rollouts: M, how often each index is repeated in a row.
        per_generation: prompts of one generation, over all processes.
        repeats: how often a generation is yielded, once for each of its micro-batches and iterations.
    """

    def __init__(
        self, prompts: int, rollouts: int, per_generation: int, repeats: int, seed: int, shuffle: bool = True
    ) -> None:
        self.prompts, self.rollouts = prompts, rollouts
        self.per_generation, self.repeats = per_generation, repeats
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def permutation(self) -> list[int]:
        """The order of the current epoch."""
        if not self.shuffle:
            return list(range(self.prompts))
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        return torch.randperm(self.prompts, generator=generator).tolist()  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[int]:
        order = self.permutation()
        for start in range(0, self.prompts - self.per_generation + 1, self.per_generation):
            for _ in range(self.repeats):
                for index in order[start : start + self.per_generation]:
                    yield from [index] * self.rollouts

    def __len__(self) -> int:
        return self.prompts // self.per_generation * self.per_generation * self.rollouts * self.repeats


class FollowEpoch(TrainerCallback):  # type: ignore[misc]
    """Tells the order of prompts which epoch begins, also in a run that was resumed inside one.

    Args:
        order: the order in use, which a trainer makes anew for every call of `train`.
    """

    def __init__(self, order: Callable[[], GroupOrder]) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.order().set_epoch(int((state.epoch or 0.0) + 1e-6))
