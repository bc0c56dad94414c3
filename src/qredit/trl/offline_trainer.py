"""What trainers that learn from completions made before they began have in common."""

import time
from collections.abc import Mapping
from typing import Any

from accelerate.logging import get_logger
from torch import Tensor, nn

from qredit.engine.run_state import METRICS, StatefulPart
from qredit.rollouts.answer_end import describe_end_conflict, get_eos_token_ids
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.samplers.transformers import make_sampler
from qredit.trl.accelerate_backend import AccelerateBackend
from qredit.trl.checkpointing import Checkpointer
from qredit.trl.run_trainer import RunTrainer

ROWS_PER_ANSWER_BATCH = 64  # completions sampled at once for a validation
_TOKENS = "tokens"
_log = get_logger(__name__)


class OfflineTrainer(RunTrainer):
    """A base for trainers whose data set holds all token ids; it stands before TRL's trainer in the list of bases."""

    def _set_up_run(
        self,
        objective: str,
        tokens: TokenFormat,
        budget: TokenBudget,
        template: Mapping[str, Any],
        chat: bool,
        peft_config: Any,
    ) -> None:
        """Check the setup, and make what answers questions and writes checkpoints; called once TRL's trainer is made.

        Args:
            objective: what is learned, in words; checkpoints of anything else are refused.
            tokens: how a completion is laid out, for answers that are sampled while the run goes on.
            budget: tokens of these.
            template: switches of the chat template.
            chat: prompts are messages.
            peft_config: as in TRL.

        Raises:
            QreditError: a model or setting that cannot be used, before any compute.
        """
        self.objective, self.format, self.template, self.budget = objective, tokens, template, budget
        self.chat = chat
        self._check_setup(peft_config)
        notice = describe_end_conflict(tokens, get_eos_token_ids(self.model), template)
        if notice is not None:
            _log.warning(notice)
        self.eos_token_ids = sorted({self._tokenizer.eos_token_id, *get_eos_token_ids(self.model)} - {None})
        self.rows_per_answer_batch = ROWS_PER_ANSWER_BATCH
        self.collective = AccelerateBackend(self.accelerator)
        self.sampler = make_sampler(self.model, int(self._tokenizer.pad_token_id))
        parts = [
            StatefulPart(
                METRICS, lambda: dict(self._metrics["train"]), lambda kept: self._metrics["train"].update(kept)
            ),
            StatefulPart(_TOKENS, lambda: {"seen": self._total_train_tokens}, self._count_from),
        ]
        self.checkpointer = Checkpointer(self.args, self.accelerator, objective, objective, parts, [])

    def _count_from(self, kept: Mapping[str, Any]) -> None:
        self._total_train_tokens = kept["seen"]

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One micro-batch, forward and backward; stopped by a loss that is not finite.

        Args:
            model: in its wrappers (DDP, PEFT), so that their hooks run.
            inputs: what the collator made.
            num_items_in_batch: transformers' count of the optimiser step.
        """
        start = time.perf_counter()
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.log_with_step({"time/update": time.perf_counter() - start})
        self._stop_unless_finite(loss, "loss")
        return loss

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` takes the newest whole checkpoint of the output folder.

        Raises:
            QreditError: no whole checkpoint to resume from, or the one named is torn.
        """
        if resume_from_checkpoint:
            resume_from_checkpoint = str(self.checkpointer.restore(resume_from_checkpoint))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
