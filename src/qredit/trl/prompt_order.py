"""Which prompts a run asks: the sampler that was given, the one that a curriculum makes, or the plain order."""

from math import ceil
from typing import Any

from qredit.curricula.protocol import Curriculum, CurriculumData
from qredit.data.prompt_sampler import PromptSampler
from qredit.data.shuffled import ShuffledPrompts
from qredit.trl.config import QreditConfig


def choose_prompt_order(
    given: PromptSampler | Curriculum | None,
    dataset: Any,
    args: QreditConfig,
    *,
    shuffle: bool,
    per_generation: int,
    period: int,
) -> PromptSampler:
    """The sampler of a run's prompts.

    Args:
        given: a sampler, a curriculum, or None for all prompts in each epoch.
        dataset: that is trained on, without rows that were left out.
        args: of the trainer.
        shuffle: whether the plain order is a permutation.
        per_generation: prompts of a generation, over all processes.
        period: micro-batches that a generation serves.

    Raises:
        QreditError: as `Curriculum.make`.
    """
    if given is None:
        return ShuffledPrompts(len(dataset), args.seed, shuffle)
    if not isinstance(given, Curriculum):
        return given
    if args.max_steps > 0:
        generations = ceil(args.max_steps * args.gradient_accumulation_steps / period)
    else:
        generations = ceil(args.num_train_epochs * (len(dataset) // per_generation))
    there = dataset.column_names
    return given.make(
        CurriculumData(
            prompts=len(dataset),
            columns={name: list(dataset[name]) for name in given.columns if name in there},
            per_generation=per_generation,
            generations=max(generations, 1),
            seed=args.seed,
            others=tuple(there),
        )
    )
