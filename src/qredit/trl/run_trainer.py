"""What every trainer of a run is, whatever it learns from: whole checkpoints, finite steps, answers, a model card."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer
from trl import DPOConfig, SFTConfig

from qredit.engine.model_limits import check_vocabulary
from qredit.engine.savable import check_savable, repair_generation_config
from qredit.environments.episode import EpisodePlayer
from qredit.evaluation.metrics import QuestionResult
from qredit.rewards.reward_spec import Reward
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.samplers.answers import answer_all
from qredit.samplers.protocol import Sampler
from qredit.samplers.transformers import TransformersSampler
from qredit.shared_prefix.support import unwrap_peft
from qredit.tasks.base import Example
from qredit.trl.accelerate_backend import AccelerateBackend
from qredit.trl.adapters import keep_adapters_exact
from qredit.trl.answer_stops import list_answer_stops, ready_to_serve
from qredit.trl.checkpointing import Checkpointer, read_tensors_on_any_cpu
from qredit.trl.checks import check_weights
from qredit.trl.config import QreditConfig
from qredit.trl.environment_variables import check_environment
from qredit.trl.model_card import ModelCard, render_card
from qredit.trl.usage import Usage
from qredit.trl.whole_weights import gather_whole_weights
from qredit.utils.errors import QreditError

_log = get_logger(__name__)


class RunTrainer(Trainer):  # type: ignore[misc]
    """A base for trainers of transformers and TRL; it stands before them in the list of bases.

    Attributes:
        args: the training arguments.
        objective: what is learned, as text or as an Objective; `str` of it names the run.
        format: how a completion is laid out.
        sampler: draws completions.
        collective: the processes that train together.
        checkpointer: writes and restores what checkpoints hold beside transformers' own files.
        template: switches of the chat template.
        chat: prompts are messages.
        budget: tokens that may be sampled for the rationale and for the answer.
        rows_per_answer_batch: completions that a process samples at once when it answers questions.
        eos_token_ids: the ids that end a text.
        player: plays episodes, where there are tools or an environment.
    """

    args: QreditConfig | SFTConfig | DPOConfig
    objective: Any
    format: TokenFormat
    sampler: Sampler
    collective: AccelerateBackend
    checkpointer: Checkpointer
    template: Mapping[str, Any]
    chat: bool
    budget: TokenBudget
    rows_per_answer_batch: int
    eos_token_ids: Sequence[int]
    player: EpisodePlayer | None = None

    _tag_names = ["trl", "qredit"]  # noqa: RUF012  # TRL's attribute
    _name = "qredit"

    def _check_setup(self, peft_config: Any) -> None:
        """Refuse what could not be computed or saved as it is; what can be mended is mended, with a warning.

        Raises:
            QreditError: a variable of the environment, weights, a tokenizer, or a file beside the weights.
        """
        check_environment(self.accelerator, self.args)
        read_tensors_on_any_cpu()
        keep_adapters_exact(self.model)
        check_weights(self.model, peft_config)
        check_vocabulary(self.model, self._tokenizer)
        mended = repair_generation_config(unwrap_peft(self.model))
        if mended is not None:
            _log.warning(mended)
        check_savable(self.model, self._tokenizer)

    def answers(
        self, examples: Sequence[Example], rewards: Sequence[Reward], k: int, seed: int
    ) -> list[QuestionResult]:
        """k sampled answers to each question, scored; every process answers its share and is given all.

        Args:
            examples: the questions, with their gold answers.
            rewards: what scores an answer.
            k: answers to each question.
            seed: of the draws; each process adds its number to it.
        """
        rank, world = self.collective.rank, self.collective.size
        with self.whole_weights():
            own = list(
                answer_all(
                    self.make_answer_sampler(),
                    self.format,
                    examples[rank::world],
                    rewards,
                    self.budget,
                    k,
                    seed=seed + rank,
                    stop_tokens=self.eos_token_ids,
                    template=self.template,
                    rows_per_batch=self.rows_per_answer_batch,
                    play=None if self.player is None else self.player.play,
                )
            )
        return self.collective.gather(own)

    def whole_weights(self) -> AbstractContextManager[None]:
        """Where processes sample, each as long as its rows need: FSDP2's shards are put together for it."""
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        return gather_whole_weights(self.model_wrapped, bool(getattr(plugin, "reshard_after_forward", True)))

    def make_answer_sampler(self) -> Sampler:
        """What answers questions: at temperature 1 and untruncated, whatever training draws with, so that validations
        compare.
        """
        policy = self.accelerator.unwrap_model(self.model)
        return TransformersSampler(policy, self._tokenizer.pad_token_id, half=bool(self.args.bf16))

    def log_with_step(self, values: Mapping[str, float]) -> None:
        """Have values logged beside those of the step."""
        for name, value in values.items():
            self._metrics["train"][name].append(value)

    # --- a step that is not finite

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and self.accelerator.scaler is None:  # fp16's scaler skips steps that overflow
            whole = norm.full_tensor() if isinstance(norm, DTensor) else norm  # FSDP2's is sharded
            self._stop_unless_finite(torch.as_tensor(whole), "gradient norm")
        return norm

    def _stop_unless_finite(self, value: Tensor, name: str) -> None:
        """Stop before a bad step reaches the weights; every process stops together."""
        bad = (~torch.isfinite(value.detach())).float().to(self.accelerator.device).reshape(())
        if float(self.accelerator.reduce(bad, "sum")) > 0:
            raise QreditError(
                f"the {name} is not finite ({float(value.detach())}) in step {self.state.global_step + 1}; the weights "
                "were left as they were; checkpoints saved before are good"
            )

    # --- what is left behind

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """TRL's checkpoint, and what is needed to go on as if never stopped, written aside and renamed when whole."""
        folder = Path(super()._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        with self.checkpointer.write_atomically(folder, self.state):
            super()._save_checkpoint(model, trial)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with ready_to_serve(unwrap_peft(self.model), list_answer_stops(self.format)):
            super()._save(output_dir, state_dict)

    def _get_output_dir(self, trial: Any) -> str:
        return str(
            super()._get_output_dir(trial)
            if self.checkpointer.staging_folder is None
            else self.checkpointer.staging_folder
        )

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """README.md of the output folder: base model, objective and how answers end; what is not known is left out.

        Args:
            model_name: None is the output folder's name.
            dataset_name: named in the card.
            tags: beside those of TRL and qredit.
        """
        if not self.is_world_process_zero():
            return
        given = [tags] if isinstance(tags, str) else list(tags or ())
        card = self.make_card(model_name or Path(self.args.output_dir).name, dataset_name, [*self._tag_names, *given])
        (Path(self.args.output_dir) / "README.md").write_text(render_card(card), encoding="utf-8")

    def make_card(self, name: str, data: str | None = None, tags: Sequence[str] = ()) -> ModelCard:
        """What this trainer knows for a model card.

        Args:
            name: of the model.
            data: named in the card.
            tags: of the card.
        """
        return ModelCard(
            name=name,
            base=str(unwrap_peft(self.model).config._name_or_path) or None,
            objective=str(self.objective),
            usage=Usage.of(self.format, self.budget, self.chat, self.template),
            data=data,
            settings={"steps": self.state.global_step, **self._card_settings()},
            tags=tags,
        )

    def _card_settings(self) -> dict[str, Any]:
        """Further facts of a model card, by name."""
        raise NotImplementedError
