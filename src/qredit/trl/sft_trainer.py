"""SftTrainer: TRL's SFTTrainer on demonstrations whose token ids and mask are made here."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTTrainer

from qredit.data.demonstrations import Demonstration
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.trl.offline_trainer import OfflineTrainer
from qredit.trl.sft_config import SftConfig

IGNORED_LABEL = -100  # of tokens that no loss counts, as PyTorch's cross entropy and TRL have it


class SftTrainer(OfflineTrainer, SFTTrainer):  # type: ignore[misc]
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
        self._set_up_run(objective, tokens, budget, template, chat, peft_config)

    def _card_settings(self) -> dict[str, Any]:
        return {"learning rate": f"{self.args.learning_rate:g}", "demonstrations": len(self.train_dataset)}


def make_sft_dataset(shown: Sequence[Demonstration]) -> Dataset:
    """Demonstrations as the columns that TRL's loss reads: ids, and as labels those of them that count."""
    labels = [
        [id if counts else IGNORED_LABEL for id, counts in zip(one.ids, one.completion_mask, strict=True)]
        for one in shown
    ]
    return Dataset.from_dict({"input_ids": [one.ids for one in shown], "labels": labels})
