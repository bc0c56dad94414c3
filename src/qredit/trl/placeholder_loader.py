"""What TRL's loader of training data counts: the micro-batches of an epoch. Which prompts they hold is asked elsewhere.

transformers fetches the batches of an optimiser step before its first one is learned from, accelerate one more, and
workers of a loader several. A prompt sampler that were asked by the loader would be asked for prompts before it has
observed those that come before them. So the loader hands out empty places, as many as an epoch has, and the trainer
asks for the prompts of a generation when it begins (`engine/prompts.py`).
"""

from collections.abc import Iterator

from torch.utils.data import Dataset, Sampler


class PlaceholderDataset(Dataset[None]):
    """As many empty rows as a data set has prompts."""

    def __init__(self, prompts: int) -> None:
        self.prompts = prompts

    def __len__(self) -> int:
        return self.prompts

    def __getitem__(self, index: int) -> None:
        return None


class EpochSampler(Sampler[int]):
    """The places of an epoch: one for each rollout of each micro-batch, on all processes.

    Args:
        prompts: size of the data set; prompts that do not fill a generation are left to another epoch.
        rollouts: M, how many are made of each prompt.
        per_generation: prompts of one generation, over all processes.
        repeats: micro-batches that a generation serves.
    """

    def __init__(self, prompts: int, rollouts: int, per_generation: int, repeats: int) -> None:
        self.places = prompts // per_generation * per_generation * rollouts * repeats

    def __iter__(self) -> Iterator[int]:
        return iter([0] * self.places)

    def __len__(self) -> int:
        return self.places
