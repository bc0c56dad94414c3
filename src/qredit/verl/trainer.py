"""verl's synchronous trainer with an Objective: credits on the driver over the whole step, the loss in the workers."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from omegaconf import open_dict
from torch import Tensor
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from qredit.callbacks.steering import Steering
from qredit.callbacks.step_records import StepRecords
from qredit.core.field_names import REFERENCE_LOGP
from qredit.core.objective import Credited, Objective
from qredit.engine.collective import SingleProcess
from qredit.engine.columns import fill_up, make_columns
from qredit.engine.gathered_rows import GatheredRows, Told, gather_rollouts, iterate_updates, rollout_of
from qredit.engine.identified_state import read_state, write_state
from qredit.engine.judging import list_rewards
from qredit.engine.mismatch import collect_mismatch_stats
from qredit.engine.scorer import Scorer
from qredit.engine.stage_state import StageState
from qredit.engine.step import ScoredMicrobatch
from qredit.engine.step_log import StepLog, collect_covariance, compute_metrics, list_success
from qredit.evaluation.metrics import estimate_success
from qredit.rollouts.collate import choose_tails
from qredit.utils.seed import derive_seed
from qredit.utils.stateful import Stateful
from qredit.verl.agent_loop import ROLLOUT, VALIDATES
from qredit.verl.checkpoint import check_revertible, describe_own, find_newest_before, find_resumed
from qredit.verl.queue import fetch, list_real, pick, read_responses, store
from qredit.verl.settings import VerlSettings
from qredit.verl.worker import QreditWorker
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
        self.collective = SingleProcess()
        self.step_log = StepLog(self.collective)
        self._learn_by(VerlSettings.read(config.qredit))

    def _learn_by(self, settings: VerlSettings) -> None:
        self.settings = settings
        self.objective = settings.make_objective()
        self.tails = choose_tails(self.objective.needs)
        self.stages = StageState(self.objective)
        self.step_success: list[float] | None = None
        self.steering = Steering(self, settings.guard)
        self.parts: list[Stateful] = [self.stages, *self.steering.overrides]
        self.scorer = Scorer(
            needs=self.objective.needs,
            tails=self.tails,
            temperature=1.0,
            layout=None,
            policy=lambda: None,
            device=torch.device("cpu"),
            free_bytes=lambda: 0.0,
        )

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        trains = (Role.ActorRollout, Role.ActorRolloutRef)
        worker = ray.remote(QreditWorker)
        self.role_worker_mapping |= {role: worker for role in trains if role in self.role_worker_mapping}

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
        if self.steering.learning_rate_share != 1:
            self.scale_learning_rate(1.0)
        self._end_if_told()
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
        return read_responses(batch, {"logp": "log_probs", "entropy": "entropy"})

    def _compute_ref_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info.update(calculate_entropy=False, compute_loss=False, temperature=1.0)
        if self.ref_in_actor:  # adapters, which are switched off
            batch.extra_info.update(no_lora_adapter=True)
            self.actor_rollout_wg.compute_log_prob(batch)
            batch.extra_info.update(no_lora_adapter=False)
        else:
            self.ref_policy_wg.compute_ref_log_prob(batch)
        self.told = {**self.told, **read_responses(batch, {REFERENCE_LOGP: "log_probs"})}
        return batch

    # --- credit

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self.drawn = self._collect(batch)
        reward = self.drawn.batch.require("reward", "the log")
        metrics["reward"] = float(reward[~reward.isnan()].mean())
        whole = self.drawn.count_complete(self.config.actor_rollout_ref.rollout.n)
        # Failed sessions leave groups short. A group all of whose sessions failed is not there at all.
        metrics["groups/incomplete"] = float(self.config.data.train_batch_size - whole)
        zeros = [torch.zeros(tag["response_len"]) for tag in batch.tags]
        return store(batch, {"advantages": zeros, "returns": zeros})

    def _collect(self, batch: Any) -> GatheredRows:
        """The rollouts of a batch, scored."""
        real = pick(batch, list_real(batch))
        extras = fetch(real, ["extra_fields"])["extra_fields"]
        told = [one if isinstance(one, dict) else one.data for one in extras]
        packed = {rollout_of(key): one[ROLLOUT] for key, one in zip(real.keys, told, strict=True) if ROLLOUT in one}
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
        self.steering.look(self.drawn.batch, self.config.actor_rollout_ref.rollout.n, self.step_log)
        wanted = self.steering.now()
        objective = wanted.at(self._progress)
        # workers cannot tell a schedule from the numbers of this moment, so they get the text where it was given
        text = self.settings.text if wanted is self.objective else str(wanted)
        parts = self.drawn.split(int(actor.ppo_mini_batch_size)) * int(actor.ppo_epochs)
        subs = [batch] if len(parts) == 1 else [self._sub_batch(part, batch) for part in parts]
        kept: list[dict[str, float]] = []
        for part, credited in iterate_updates(
            objective, self.drawn, parts, self.stages, self.scorer, lambda number: self._score(subs[number])
        ):
            if not kept:
                state, compared = dict(self.stages.state), self._compare(objective, part)
                learned = ScoredMicrobatch(objective, part.rows, part.batch, credited, state, self.drawn.first)
            further = {**({} if kept else compared), **collect_covariance(credited, part.batch)}
            self.step_log.add(objective, part.batch, further)
            kept.append(self._take_step(subs[len(kept)], part, objective, credited, text))
        metrics.update({name: sum(one[name] for one in kept) / len(kept) for name in kept[0]})
        facts = self.step_log.take()
        metrics.update(compute_metrics(objective, facts))
        self.step_success = list_success(facts)
        metrics.update(self.steering.end_step(self.global_steps, facts, self._saves))
        if self.steering.ended and not self._saves:
            self._save_checkpoint()
        self._end_if_told()
        metrics["driver/cpu_seconds"] = time.process_time() - self.since
        self.files.write(self.global_steps, metrics, learned, self.steering.list_decisions())
        return batch

    @property
    def _saves(self) -> bool:
        """Whether verl saves this step."""
        every, step = self.config.trainer.save_freq, self.global_steps
        return bool(every > 0 and (step >= self.total_training_steps or step % every == 0))

    def _end_if_told(self) -> None:
        if self.steering.ended:
            self.total_training_steps = self.global_steps  # verl stops behind it

    # --- what the guard asks of a run

    def check_revertible(self, slower: bool) -> None:
        check_revertible(self.config)

    def find_checkpoint(self, step: int) -> Path | None:
        return find_newest_before(Path(self.config.trainer.default_local_dir), step)

    def restore_weights(self, checkpoint: Path) -> None:
        """Take back weights, the optimiser's moments with their schedule, and the state of stages; the data go on."""
        self.actor_rollout_wg.load_checkpoint(local_path=str(checkpoint / "actor"), del_local_after_load=False)
        self.stages.load_state_dict(read_state(checkpoint, self.objective, self.model)[self.stages.name])

    def scale_learning_rate(self, factor: float) -> None:
        self.actor_rollout_wg.set_learning_rate_share(factor * self.steering.learning_rate_share)

    # --- validation

    def _val_metrics_update(
        self, sources: list[str], questions: list[str], scores: Mapping[str, list[Any]], *given: Any, **named: Any
    ) -> dict[str, float]:
        found: dict[str, float] = super()._val_metrics_update(sources, questions, scores, *given, **named)
        primary = list_rewards(self.settings.reward, sources[0])[0].name
        success = estimate_success(questions, scores[primary])
        self.steering.check(self.global_steps, success)
        return {**found, "validation/p@1": success.value}

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
        sub = store(sub, fill_up(columns, part.keys, sub.keys, [tag["response_len"] for tag in sub.tags]))
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
