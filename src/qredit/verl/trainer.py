"""verl's synchronous trainer with an Objective: credits on the driver over the whole step, the loss in the workers."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import open_dict
from torch import Tensor
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.utils.padding import response_from_nested

from qredit.callbacks.auto_q import AutoQ
from qredit.callbacks.step_records import StepRecords
from qredit.control.auto_objective import find_auto
from qredit.core.objective import Credited, Objective
from qredit.engine.collective import SingleProcess
from qredit.engine.columns import make_columns
from qredit.engine.gathered_rows import GatheredRows, Told, credit_before, credit_now, gather_rollouts
from qredit.engine.identified_state import read_state, write_state
from qredit.engine.mismatch import collect_mismatch_stats
from qredit.engine.scorer import Scorer
from qredit.engine.stage_state import StageState
from qredit.engine.step import ScoredMicrobatch
from qredit.engine.step_log import StepLog, compute_metrics
from qredit.rollouts.collate import choose_tails
from qredit.utils.seed import derive_seed
from qredit.utils.stateful import Stateful
from qredit.verl.agent_loop import ROLLOUT, VALIDATES
from qredit.verl.checkpoint import describe_own, find_resumed
from qredit.verl.queue import fetch, list_real, pick, store
from qredit.verl.settings import VerlSettings
from qredit.verl.worker_loss import DENOMINATORS, OBJECTIVE, PROGRESS, compute_loss

MODE = "qredit"


@register_trainer(MODE)
class QreditTrainer(PPOTrainerSync):  # type: ignore[misc]
    """Learns by an Objective.

    What is replaced: how many rows verl fills a batch up to, scores (at temperature 1), advantages and the update.
    Sampling is `QreditAgentLoop`'s. All else is verl's.
    """

    def __init__(self, config: Any) -> None:
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # verl compares this name where it means this class's base
        super().__init__(config)
        self.alone = SingleProcess()
        self.step_log = StepLog(self.alone)
        self._learn_by(VerlSettings.read(config.qredit))

    def _learn_by(self, settings: VerlSettings) -> None:
        self.settings = settings
        self.objective = settings.make_objective()
        self.tails = choose_tails(self.objective.needs)
        self.stages = StageState(self.objective)
        self.guide = AutoQ(self.objective) if find_auto(self.objective) is not None else None
        self.parts: list[Stateful] = [one for one in (self.stages, self.guide) if one is not None]
        self.scorer = Scorer(
            needs=self.objective.needs,
            tails=self.tails,
            temperature=1.0,
            layout=None,
            policy=lambda: None,
            device=torch.device("cpu"),
            free_bytes=lambda: 0.0,
        )

    def _setup(self) -> None:
        super()._setup()
        self.actor_rollout_wg.set_loss_fn(compute_loss)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        self.model = describe_own(self.config.actor_rollout_ref.model, self.tokenizer)
        self.files = StepRecords(Path(self.config.trainer.default_local_dir), self.tokenizer, self.total_training_steps)
        # So that the agent loop knows: what is validated is never shown with its gold answer.
        frame = self.val_dataset.dataframe
        self.val_dataset.dataframe = frame.add_column(VALIDATES, [True] * len(frame))

    def _balance_batch(self, batch: Any, *given: Any, **named: Any) -> Any:
        """verl's, from a fixed order on: samples come as they were done, and a resumed run is to add in one order."""
        index = [int(one) for one in fetch(batch, ["index"])["index"]]
        order = sorted(range(len(index)), key=lambda place: (index[place], *map(int, batch.keys[place].split("_")[1:])))
        return super()._balance_batch(pick(batch, order), *given, **named)

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        return dp_size  # a step takes its rows as they are: mini-batches are cut by groups, below

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        write_state(folder, self.objective, self.model, self.parts)  # before verl's marker
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        folder = find_resumed(self.config.trainer)
        if folder is not None:
            state = read_state(folder, self.objective, self.model)
            for part in self.parts:
                part.load_state_dict(state[part.name])
        self.files.begin(self.global_steps)

    # --- scores, at temperature 1 whatever that of the rollout

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self.since = time.process_time()
        self.told = self._score(batch)
        return batch

    def _score(self, batch: Any) -> Told:
        """logp and entropy of each sequence, by its key, as the current weights see each token of its responses."""
        batch.extra_info.update(calculate_entropy=True, compute_loss=False, temperature=1.0)
        self.actor_rollout_wg.compute_log_prob(batch)
        told = fetch(batch, ["log_probs", "entropy", "response_mask"])
        return {
            name: dict(zip(batch.keys, response_from_nested(told[column], told["response_mask"]).unbind(), strict=True))
            for name, column in (("logp", "log_probs"), ("entropy", "entropy"))
        }

    # --- credit

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self.drawn = self._collect(batch)
        reward = self.drawn.batch.require("reward", "the log")
        metrics["reward"] = float(reward[~reward.isnan()].mean())
        sizes = self.drawn.batch.group.unique(return_counts=True)[1] // max(len(self.tails), 1)
        whole = int((sizes == self.config.actor_rollout_ref.rollout.n).sum())
        # Failed sessions leave groups short. A group all of whose sessions failed is not there at all.
        metrics["groups/incomplete"] = float(self.config.data.train_batch_size - whole)
        zeros = [torch.zeros(tag["response_len"]) for tag in batch.tags]
        return store(batch, {"advantages": zeros, "returns": zeros})

    def _collect(self, batch: Any) -> GatheredRows:
        """The rollouts of a batch, scored."""
        real = pick(batch, list_real(batch))
        extras = fetch(real, ["extra_fields"])["extra_fields"]
        told = [one if isinstance(one, dict) else one.data for one in extras]
        packed = {
            key.rsplit("_", 1)[0]: one[ROLLOUT] for key, one in zip(real.keys, told, strict=True) if ROLLOUT in one
        }
        gathered = gather_rollouts(
            packed,
            real.keys,
            self.tails,
            self.tokenizer.pad_token_id,
            # as on TRL: stages that draw take the number of a group for their seed
            first=(self.global_steps - 1) * int(self.config.data.train_batch_size),
            seed=derive_seed(self.settings.seed, self.global_steps - 1),
        )
        return gathered.attach(self.told, self.scorer)

    # --- the update

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """One optimiser step for each mini-batch of whole groups, and for each epoch."""
        actor = self.config.actor_rollout_ref.actor
        if self.guide is not None and not self.guide.begun:
            # Before any update, the first rollouts are what q is to be chosen for. A look of its own would need more.
            self.step_log.add(self.guide.now().at(0.0), self.drawn.batch)
            self.guide.begin(self.step_log.take(), self.config.actor_rollout_ref.rollout.n)
        wanted = self.objective if self.guide is None else self.guide.now()
        text = self.settings.text if self.guide is None else str(wanted)
        objective = wanted.at(self._progress)
        self.stages.begin(objective, [self.drawn.batch], self.alone)
        parts = self.drawn.split(int(actor.ppo_mini_batch_size)) * int(actor.ppo_epochs)
        known = credit_before(objective, self.drawn, parts, self.stages)
        kept = []
        for number, part in enumerate(parts):
            sub = batch if len(parts) == 1 else self._sub_batch(part, batch)
            if number and known is None:  # the weights have moved
                scored = part.attach(self._score(sub), self.scorer, off_policy=True)
            else:
                scored = part.move_off_policy() if number else part
            credited = credit_now(objective, scored, self.stages) if known is None else known[number]
            if number == 0:
                state = dict(self.stages.state)
                learned = ScoredMicrobatch(objective, scored.rows, scored.batch, credited, state, self.drawn.first)
            kept.append(self._take_step(sub, scored, objective, credited, text))
            self.stages.update(objective, scored.batch, self.alone, True, number == len(parts) - 1)
            self.step_log.add(objective, scored.batch, self._compare(objective, scored) if number == 0 else None)
        metrics.update({name: sum(one[name] for one in kept) / len(kept) for name in kept[0]})
        facts = self.step_log.take()
        metrics.update(compute_metrics(objective, facts))
        if self.guide is not None:
            metrics["guide/paft"] = float(self.guide.estimator == "paft")
            self.guide.observe(self.global_steps, facts)
        decided = [] if self.guide is None else self.guide.list_decisions()
        metrics["driver/cpu_seconds"] = time.process_time() - self.since
        self.files.write(self.global_steps, metrics, learned, decided)
        return batch

    def _compare(self, objective: Objective, part: GatheredRows) -> Mapping[str, Tensor]:
        """What the rollout engine and the workers make of the same tokens; at another temperature they differ by it."""
        if self.config.actor_rollout_ref.rollout.temperature != 1:
            return {}
        return collect_mismatch_stats(objective, part.rows.batch, part.batch)

    @property
    def _progress(self) -> float:
        return float((self.global_steps - 1) / max(self.total_training_steps, 1))

    def _sub_batch(self, part: GatheredRows, batch: Any) -> Any:
        """verl's batch of some sequences, filled up for its workers."""
        where = {key: number for number, key in enumerate(batch.keys)}
        return super()._balance_batch(pick(batch, [where[key] for key in part.keys]), metrics={})

    def _take_step(
        self, sub: Any, part: GatheredRows, objective: Objective, credited: Credited, text: str
    ) -> dict[str, float]:
        """One optimiser step; what verl tells of it.

        Args:
            sub: verl's batch of the sequences.
            part: the rows that are learned from.
            objective: the plain one of this moment.
            credited: their coefficients.
            text: the objective, schedules and all.
        """
        needs = objective.surrogate.needs.union(*(penalty.needs for penalty in objective.penalties))
        columns = make_columns(part.batch, credited, part.places, needs)
        where = {key: number for number, key in enumerate(part.keys)}
        kinds = {name: values[0].dtype for name, values in columns.items()}
        filled = {
            name: [
                values[where[key]] if key in where else torch.zeros(tag["response_len"], dtype=kinds[name])
                for key, tag in zip(sub.keys, sub.tags, strict=True)
            ]
            for name, values in columns.items()
        }
        sub = store(sub, filled)
        sub.extra_info = {
            "calculate_entropy": "entropy" in needs,
            "distillation_use_topk": False,
            "distillation_only": False,
            "global_batch_size": len(sub),
            "mini_batch_size": len(sub),
            "epochs": 1,
            "seed": self.settings.seed,
            "dataloader_kwargs": {"shuffle": False},
            "temperature": 1.0,
            OBJECTIVE: text,
            PROGRESS: self._progress,
            DENOMINATORS: objective.denominators(part.batch, credited),
        }
        told = self.actor_rollout_wg.update_actor(sub)["metrics"]
        arrays = {f"actor/{name}": np.asarray(value) for name, value in told.items()}
        return {name: float(value.mean()) for name, value in arrays.items() if value.size and value.dtype.kind in "if"}
