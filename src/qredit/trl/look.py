"""The look before the first step: what some prompts show of their likelihood, for the guide to begin from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback

from qredit.control.diagnostics import likelihood_facts
from qredit.rollouts.collate import Sampled
from qredit.trl.data import ANSWER_IDS, PROMPT_IDS
from qredit.trl.guide import LOOKED, Guide
from qredit.trl.step.log import joined, on_cpu
from qredit.utils.seed import BEFORE

if TYPE_CHECKING:
    from qredit.trl.trainer import QreditTrainer

_log = get_logger(__name__)


class LookFirst(TrainerCallback):  # type: ignore[misc]
    """Before the first step of a run that leaves q to its guide, lets it look; a resumed run has looked already."""

    def __init__(self, trainer: "QreditTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.guide is not None and not self.trainer.guide.begun:
            self._look(self.trainer, self.trainer.guide)

    def _look(self, trainer: "QreditTrainer", guide: Guide) -> None:
        """Let the guide begin from what some prompts show of their likelihood; nothing is learned from them."""
        trainer.model.train()
        accelerator, m, prompts = trainer.accelerator, trainer.num_generations, len(trainer.train_dataset)
        world, rank = accelerator.num_processes, accelerator.process_index
        count = max(min(LOOKED, prompts) // world, 1) * world  # as many for each process
        own = [place * prompts // count for place in range(count)][rank::world]
        size = max(trainer.args.per_device_train_batch_size // m, 1)
        found = [self._likelihood_of(own[start : start + size], number=start) for start in range(0, len(own), size)]
        decision = guide.begin(joined(gather_object(found)), m)
        _log.info(f"{decision.estimator}(q={decision.q:g}): {decision.reason}")

    def _likelihood_of(self, places: Sequence[int], number: int) -> dict[str, Tensor]:
        """The likelihood facts of some prompts of the data set."""
        trainer, m = self.trainer, self.trainer.num_generations
        inputs = [dict(trainer.train_dataset[place]) for place in places for _ in range(m)]
        rollouts = trainer.sampling.draw([row[PROMPT_IDS] for row in inputs], BEFORE + number)
        sampled = [
            Sampled(rollout, tuple(row[PROMPT_IDS]), index // m, tuple(row[ANSWER_IDS]), reward=torch.nan)
            for index, (row, rollout) in enumerate(zip(inputs, rollouts, strict=True))
        ]
        rows = trainer.collation.rows(sampled, trainer.args.seed, trainer.collation.vocabulary(sampled))
        batch = trainer.passes.scored_without_gradient(trainer.model_wrapped, rows)
        return on_cpu(likelihood_facts(trainer.objective_now(), batch))
