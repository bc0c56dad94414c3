"""SftTrainer: TRL's SFTTrainer on demonstrations whose token ids and mask are made here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTTrainer

from qredit.data.demonstrations import Demonstration
from qredit.data.token_rules.protocol import TokenRule
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.trl.offline_trainer import OfflineTrainer
from qredit.trl.sft_config import SftConfig

IGNORED_LABEL = -100  # of tokens that no loss counts, as PyTorch's cross entropy and TRL have it


class SftTrainer(OfflineTrainer, SFTTrainer):  # type: ignore[misc]
    """Supervised fine-tuning: the loss is the mean over completion tokens of -log p(token | all before it).

    The mean runs over all completion tokens of an optimiser step, in nats, or over those that a rule keeps: then the
    whole step is scored first, without gradient, and metrics are those of the tokens that were kept. Ids are fed as
    they were made: nothing is tokenised, truncated, packed or shuffled before the loader.

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
        token_rule: which tokens of a step count; None is all.
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
        token_rule: TokenRule | None = None,
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
        self.token_rule = token_rule
        self._set_up_run(objective, tokens, budget, template, chat, peft_config)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """The micro-batches of an optimiser step, and how many of their tokens count.

        Args:
            epoch_iterator: of the loader.
            num_batches: micro-batches of a step.
            device: where the count is needed.
        """
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.token_rule is None or not batches:
            return batches, count
        batches = self._drop_tokens(batches, self.token_rule)
        return batches, self._get_num_items_in_batch(batches, device)

    def _drop_tokens(self, batches: list[dict[str, Any]], rule: TokenRule) -> list[dict[str, Any]]:
        """The step with the labels of tokens taken away that the rule leaves out, which no loss counts then."""
        scores = [self._score(batch) for batch in batches]
        sizes = [len(one) for one in scores]
        parts = self.collective.gather([torch.cat(scores).cpu()])
        kept = rule.choose(*torch.cat(parts).T)
        start = sum(len(part) for part in parts[: self.collective.rank])
        own = kept[start : start + sum(sizes)].split(sizes)
        return [_keep_labels(batch, chosen) for batch, chosen in zip(batches, own, strict=True)]

    @torch.no_grad()
    def _score(self, batch: Mapping[str, Any]) -> Float[Tensor, "N 2"]:
        """-log p and entropy of the completion tokens of a micro-batch, row by row."""
        with self.compute_loss_context_manager():
            told = self.model_wrapped(**batch, use_cache=False, fused_lm_head=True)
        return torch.stack([-told.log_probs, told.entropy], -1)[told.label_mask].float()

    def _card_settings(self) -> dict[str, Any]:
        return {"learning rate": f"{self.args.learning_rate:g}", "demonstrations": len(self.train_dataset)}


def _keep_labels(batch: Mapping[str, Any], chosen: Bool[Tensor, " N"]) -> dict[str, Any]:
    """A micro-batch with the labels of these of its tokens alone; the first of a row is predicted by nothing."""
    labels = batch["labels"].clone()
    counted = labels[:, 1:] != IGNORED_LABEL
    labels[:, 1:][counted] = torch.where(chosen.to(labels.device), labels[:, 1:][counted], IGNORED_LABEL)
    return {**batch, "labels": labels}


def make_sft_dataset(shown: Sequence[Demonstration]) -> Dataset:
    """Demonstrations as the columns that TRL's loss reads: ids, and as labels those of them that count."""
    labels = [
        [id if counts else IGNORED_LABEL for id, counts in zip(one.ids, one.completion_mask, strict=True)]
        for one in shown
    ]
    return Dataset.from_dict({"input_ids": [one.ids for one in shown], "labels": labels})
