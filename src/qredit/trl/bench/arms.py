"""The trainers that are compared, each with a way to sample and a way to update on given rollouts."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from qredit.engine.step import MicrobatchLoss
from qredit.rollouts.collate import Rows, collate
from qredit.rollouts.trajectory import make_one_turn
from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import ANSWER, ModelShape, Size
from qredit.trl.config import QreditConfig
from qredit.trl.trainer import QreditTrainer

PROMPTS = 4  # a data set must hold a few


@dataclass(frozen=True, eq=False)
class FixedRollouts:
    """One group of rollouts that every trainer updates on.

    Attributes:
        prompt: ids.
        completions: M tuples of ids: rationale, closing, answer.
        rewards: M numbers that differ, so that advantages are not 0.
        aliases: right answers beside the gold one, which is what each completion ends in.
    """

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]
    aliases: tuple[tuple[int, ...], ...] = ()


def spell_ids(ids: Sequence[int]) -> str:
    """The text that the benchmark's tokenizer reads as these ids."""
    return " ".join(f"w{token}" for token in ids)


def make_rollouts(size: Size, shape: ModelShape, seed: int, opening: int, closing: int) -> FixedRollouts:
    """Random rollouts of a random prompt; the prompt ends in `opening`, every rationale in `closing`.

    Args:
        size: tokens of prompt and completion, and rollouts.
        shape: layers, widths and vocabulary of the model.
        seed: all draws are a function of it.
        opening: id that ends the prompt.
        closing: id that ends a rationale.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(4, shape.vocabulary, (count,), generator=generator).tolist()  # type: ignore[no-any-return]

    completions = ((*draw(size.completion - ANSWER - 1), closing, *draw(ANSWER - 1), 1) for _ in range(size.m))
    rewards = tuple(float(number % 2) for number in range(size.m))
    return FixedRollouts((*draw(size.prompt - 1), opening), tuple(completions), rewards)


class Arm(ABC):
    """A trainer made for one size; `sample` and `update` are what is timed."""

    trainer: Any

    @abstractmethod
    def sample(self) -> object:
        """One group of rollouts with their rewards."""

    @abstractmethod
    def update(self, rollouts: FixedRollouts) -> None:
        """Forward and backward on one group; gradients are left on the model."""

    @abstractmethod
    def score(self, rollouts: FixedRollouts) -> None:
        """Log-probabilities of one group, without gradient."""


def _settings(size: Size, setup: Setup, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": size.m,
        "num_generations": size.m,
        "max_completion_length": size.completion,
        "learning_rate": 1e-6,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": setup.cpu,
        "bf16": setup.half,
        "gradient_checkpointing": setup.checkpointing,
    }


def _spread(completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(number % 2) for number in range(len(completions))]


def _data(size: Size, shape: ModelShape) -> Dataset:
    prompts = [spell_ids(make_rollouts(size, shape, seed, 4, 4).prompt[:-1]) for seed in range(PROMPTS)]
    return Dataset.from_dict({"prompt": prompts, "answer": [spell_ids(range(10, 10 + ANSWER - 1))] * PROMPTS})


def _model(size: Size, shape: ModelShape, setup: Setup) -> Any:
    with setup.device:  # random weights of a large model take long to draw on a CPU
        return shape.model(size.prompt + size.completion + 16).to(setup.dtype)


def _ready(trainer: Any) -> None:
    """What `train()` does to a model before its first step: autocast around its forward, checkpointing."""
    trainer.model_wrapped = trainer.accelerator.prepare_model(trainer.model)
    if trainer.args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1


class TrlArm(Arm):
    """TRL's GRPOTrainer as it is."""

    def __init__(self, size: Size, shape: ModelShape, setup: Setup) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.tokenizer: PreTrainedTokenizerFast = shape.tokenizer()
        self.data = _data(size, shape)
        self.trainer = GRPOTrainer(
            _model(size, shape, setup),
            _spread,
            GRPOConfig(**_settings(size, setup, self._folder.name)),
            self.data,
            processing_class=self.tokenizer,
            peft_config=setup.adapters,
        )
        _ready(self.trainer)
        self.m = size.m

    def sample(self) -> object:
        return self.trainer._generate_and_score_completions([dict(self.data[0]) for _ in range(self.m)])

    def update(self, rollouts: FixedRollouts) -> None:
        self.trainer._compute_loss(self.trainer.model, self._inputs(rollouts)).backward()

    def score(self, rollouts: FixedRollouts) -> None:
        inputs = self._inputs(rollouts)
        ids, mask = (torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"]], 1) for name in ("ids", "mask"))
        with torch.no_grad():
            self.trainer._get_per_token_logps_and_entropies(
                self.trainer.model, ids, mask, inputs["completion_ids"].shape[1]
            )

    def _inputs(self, rollouts: FixedRollouts) -> dict[str, Tensor]:
        device = self.trainer.accelerator.device
        completions = torch.tensor(rollouts.completions, device=device)
        prompts = torch.tensor([rollouts.prompt] * len(completions), device=device)
        rewards = torch.tensor(rollouts.rewards, device=device)
        return {
            "prompt_ids": prompts,
            "prompt_mask": torch.ones_like(prompts),
            "completion_ids": completions,
            "completion_mask": torch.ones_like(completions),
            "advantages": (rewards - rewards.mean()) / (rewards.std() + 1e-4),
            "num_items_in_batch": torch.tensor(completions.numel(), device=device),
        }


class QreditArm(Arm):
    """Our trainer with an objective; prompts shared, or repeated as in the ordinary forward pass."""

    def __init__(self, size: Size, shape: ModelShape, setup: Setup, objective: str, shared: bool) -> None:
        self._folder = tempfile.TemporaryDirectory()
        settings = _settings(size, setup, self._folder.name)
        self.trainer = QreditTrainer(
            _model(size, shape, setup),
            objective,
            QreditConfig(**settings, answer_budget=ANSWER, shared_prefix=shared),
            _data(size, shape),
            reward_funcs=_spread,
            processing_class=shape.tokenizer(),
            peft_config=setup.adapters,
        )
        _ready(self.trainer)
        self.m = size.m

    def sample(self) -> object:
        trainer = self.trainer
        rows = [dict(trainer.train_dataset[0]) for _ in range(self.m)]
        trajectories = trainer.rollout_sampler.sampled(rows, 0, self.m)
        return trainer.generations.make(trainer.model_wrapped, trajectories, trainer.current_objective(), 0, self.m)

    def update(self, rollouts: FixedRollouts) -> None:
        trainer = self.trainer
        objective = trainer.current_objective()
        rows = self.rows(rollouts)
        known = None if "answer_logp" in objective.needs else objective.evaluate(rows.batch)
        counts, state = objective.denominators(rows.batch), trainer.stages.state
        _, loss = MicrobatchLoss(
            trainer.scorer, trainer.model, objective, rows, counts, state, trainer.step.backward
        ).batch_and_loss(known)
        loss.backward()

    def score(self, rollouts: FixedRollouts) -> None:
        with torch.no_grad():
            self.trainer.scorer.score(self.trainer.model, self.rows(rollouts))

    def rows(self, rollouts: FixedRollouts) -> Rows:
        """The group as it is scored: prompts and completions, padded, on the trainer's device."""
        trajectories = [
            replace(
                make_one_turn(
                    *(rollouts.prompt, ids, (0.0,) * len(ids), len(ids) - ANSWER - 1, len(ids) - ANSWER),
                    forced=False,
                    ended=True,
                ),
                golds=(tuple(ids[-ANSWER:]), *rollouts.aliases),
                reward=reward,
            )
            for ids, reward in zip(rollouts.completions, rollouts.rewards, strict=True)
        ]
        return collate(trajectories, self.trainer.tails, 0, 0, self.trainer.accelerator.device)


def make(name: str, objective: str, size: Size, shape: ModelShape, setup: Setup) -> Arm:
    """The arm called trl, ordinary or qredit.

    Args:
        name: trl, ordinary or qredit.
        objective: in its text form.
        size: tokens of prompt and completion, and rollouts.
        shape: layers, widths and vocabulary of the model.
        setup: how all arms compute.
    """
    torch.manual_seed(0)
    if name == "trl":
        return TrlArm(size, shape, setup)
    return QreditArm(size, shape, setup, objective, shared=name == "qredit")


def folder_of(arm: Arm) -> Path:
    """Where the arm's trainer would write."""
    return Path(arm.trainer.args.output_dir)
