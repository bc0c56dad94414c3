"""DpoTrainer: TRL's DPOTrainer on preference pairs whose token ids and masks are made here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from qredit.data.preferences import PreferencePair
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.trl.dpo_config import DpoConfig
from qredit.trl.offline_trainer import OfflineTrainer


class DpoTrainer(OfflineTrainer, DPOTrainer):  # type: ignore[misc]
    """Training on preferences by TRL's losses, such as DPO's -log sigmoid(beta (h(chosen) - h(rejected))).

    h(y) is the sum over the sampled tokens of y of log p(token) - log p_ref(token) (arXiv 2305.18290, eq. 7). Tokens
    that the policy did not draw (forced closings, observations) are read and not counted. Ids are fed as they were
    sampled: nothing is tokenised, cut or given an end of text.

    Args:
        model: a loaded model (full fine-tuning needs float32 weights; autocast does the rest).
        args: TRL's arguments.
        pairs: what is preferred to what.
        tokens: how a completion is laid out, for answers that are sampled while the run goes on.
        budget: tokens of these.
        template: switches of the chat template.
        processing_class: the tokenizer.
        reference: a second model with the weights that the run begins with; None where adapters are trained, for
            without them the model is its own reference, and with `precompute_ref_log_probs`.
        objective: what is learned, in words; checkpoints of anything else are refused.
        chat: prompts are messages.
        callbacks, peft_config: as in TRL.

    Raises:
        QreditError: a model or setting that cannot be used, before any compute.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: DpoConfig,
        pairs: Sequence[PreferencePair],
        tokens: TokenFormat,
        budget: TokenBudget,
        template: Mapping[str, Any],
        processing_class: PreTrainedTokenizerBase,
        reference: PreTrainedModel | None = None,
        objective: str = "dpo",
        chat: bool = False,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: Any = None,
    ) -> None:
        super().__init__(
            model=model,
            ref_model=reference,
            args=args,
            data_collator=PairCollator(
                pad_token_id=int(processing_class.pad_token_id),  # type: ignore[arg-type]
                pad_to_multiple_of=args.pad_to_multiple_of,
            ),
            train_dataset=make_dpo_dataset(pairs),
            processing_class=processing_class,
            callbacks=callbacks,
            peft_config=peft_config,
        )
        self._set_up_run(objective, tokens, budget, template, chat, peft_config)

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        """The data set as it is: TRL would tokenise texts here, and has no switch that leaves ids alone."""
        return dataset

    def _card_settings(self) -> dict[str, Any]:
        return {"learning rate": f"{self.args.learning_rate:g}", "preference pairs": len(self.train_dataset)}


def make_dpo_dataset(pairs: Sequence[PreferencePair]) -> Dataset:
    """Pairs as the columns that TRL's collator reads, and for each completion which of its tokens count."""
    sides = {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
    ids = {f"{name}_ids": [list(one.ids) for one in side] for name, side in sides.items()}
    masks = {f"{name}_mask": [list(one.sampled) for one in side] for name, side in sides.items()}
    return Dataset.from_dict({"prompt_ids": [list(pair.prompt_ids) for pair in pairs], **ids, **masks})


@dataclass
class PairCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator, in whose `completion_mask` only sampled tokens count, and not all behind the prompt."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        rows = [(one["prompt_ids"], one[mask]) for mask in ("chosen_mask", "rejected_mask") for one in examples]
        for row, (prompt, sampled) in enumerate(rows):  # TRL stacks the chosen ones on the rejected ones
            batch["completion_mask"][row, len(prompt) : len(prompt) + len(sampled)] = torch.tensor(sampled)
        return batch
