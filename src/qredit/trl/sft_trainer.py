"""SftTrainer: TRL's SFTTrainer on demonstrations whose token ids and mask are made here."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.logging import get_logger
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTTrainer

from qredit.data.demonstrations import Demonstration
from qredit.engine.run_state import METRICS, StatefulPart
from qredit.rollouts.answer_end import describe_end_conflict, get_eos_token_ids
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.samplers.transformers import make_sampler
from qredit.trl.accelerate_backend import AccelerateBackend
from qredit.trl.checkpointing import Checkpointer
from qredit.trl.run_trainer import RunTrainer
from qredit.trl.sft_config import SftConfig

IGNORED_LABEL = -100  # of tokens that no loss counts, as PyTorch's cross entropy and TRL have it
ROWS_PER_ANSWER_BATCH = 64  # completions sampled at once for a validation
_TOKENS = "tokens"
_log = get_logger(__name__)


class SftTrainer(RunTrainer, SFTTrainer):  # type: ignore[misc]
    """Supervised fine-tuning: the loss is the mean over completion tokens of -log p(token | all before it).

    The mean runs over all completion tokens of an optimiser step, in nats. Ids are fed as they were made: nothing is
    tokenised, truncated, packed or shuffled before the loader.

    Args:
        model: a loaded model (full fine-tuning needs float32 weights; autocast does the rest).
        args: TRL's arguments.
        shown: the demonstrations.
        tokens: how a completion is laid out, for answers that are sampled while the run goes on.
        budget: tokens of these.
        template: switches of the chat template.
        processing_class: the tokenizer.
        objective: what is learned, in words; checkpoints of anything else are refused.
        chat: prompts are messages.
        callbacks, peft_config: as in TRL.

    Raises:
        QreditError: a model or setting that cannot be used, before any compute.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: SftConfig,
        shown: Sequence[Demonstration],
        tokens: TokenFormat,
        budget: TokenBudget,
        template: Mapping[str, Any],
        processing_class: PreTrainedTokenizerBase,
        objective: str = "sft",
        chat: bool = False,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: Any = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=make_sft_dataset(shown),
            processing_class=processing_class,
            callbacks=callbacks,
            peft_config=peft_config,
        )
        self.objective, self.format, self.template, self.budget = objective, tokens, template, budget
        self.chat = chat
        self._check_setup(peft_config)
        notice = describe_end_conflict(tokens, get_eos_token_ids(self.model), template)
        if notice is not None:
            _log.warning(notice)
        self.eos_token_ids = sorted({processing_class.eos_token_id, *get_eos_token_ids(self.model)} - {None})
        self.rows_per_answer_batch = ROWS_PER_ANSWER_BATCH
        self.collective = AccelerateBackend(self.accelerator)
        self.sampler = make_sampler(self.model, int(processing_class.pad_token_id))
        parts = [
            StatefulPart(
                METRICS, lambda: dict(self._metrics["train"]), lambda kept: self._metrics["train"].update(kept)
            ),
            StatefulPart(_TOKENS, lambda: {"seen": self._total_train_tokens}, self._count_from),
        ]
        self.checkpointer = Checkpointer(args, self.accelerator, objective, objective, parts, [])

    def _count_from(self, kept: Mapping[str, Any]) -> None:
        self._total_train_tokens = kept["seen"]

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One micro-batch, forward and backward; stopped by a loss that is not finite.

        Args:
            model: in its wrappers (DDP, PEFT), so that their hooks run.
            inputs: ids and labels.
            num_items_in_batch: the completion tokens of the optimiser step, which the loss is divided by.
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

    def _card_settings(self) -> dict[str, Any]:
        return {"learning rate": f"{self.args.learning_rate:g}", "demonstrations": len(self.train_dataset)}


def make_sft_dataset(shown: Sequence[Demonstration]) -> Dataset:
    """Demonstrations as the columns that TRL's loss reads: ids, and as labels those of them that count."""
    labels = [
        [id if counts else IGNORED_LABEL for id, counts in zip(one.ids, one.completion_mask, strict=True)]
        for one in shown
    ]
    return Dataset.from_dict({"input_ids": [one.ids for one in shown], "labels": labels})
