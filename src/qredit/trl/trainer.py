"""QreditTrainer: TRL's GRPOTrainer, with whole groups, the gold answer's likelihood, and an Objective for its loss.

What is replaced: sampling (thinking is closed, by force if need be, and the gold answer appended as ids), the order of
rows (groups stay whole), the loss, checkpoints and model cards. What stays TRL's: calling reward functions, logging,
evaluation, PEFT, distribution, the fused head that scores tokens without their logits. The facts about TRL that this
rests on are held by tests/trl/test_trl_contract.py.
"""

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType
from datasets import Dataset, concatenate_datasets
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from qredit.callbacks.auto_q import NUM_INITIAL_PROMPTS, AutoQ
from qredit.callbacks.collapse_guard import CollapseGuard
from qredit.callbacks.credit_recorder import CreditRecorder
from qredit.callbacks.initial_q import InitialQCallback
from qredit.callbacks.rollout_writer import RolloutWriter
from qredit.callbacks.validation import ValidationCallback
from qredit.control.auto_objective import find_auto
from qredit.core.batch import RolloutBatch
from qredit.core.field_names import ANSWER_FIELDS
from qredit.core.objective import Objective, sum_terms
from qredit.curricula.protocol import Curriculum
from qredit.data.completions import group_by_prompt
from qredit.data.encoding import PROMPT_IDS
from qredit.data.prompt_sampler import PromptSampler
from qredit.data.uniform import UniformPrompts
from qredit.engine.checkpoint import find_newest_before
from qredit.engine.collation import Collator
from qredit.engine.current_objective import CurrentObjective
from qredit.engine.drawing import RuleSampler, measure_token_entropy
from qredit.engine.generation import Generation, Microbatch
from qredit.engine.gold_reader import find_gold_reader
from qredit.engine.hinted_retry import HintedRetry
from qredit.engine.initial_likelihood import InitialLikelihood
from qredit.engine.learner import Learner, LearnerFile, Learners
from qredit.engine.learning_rate import scale_learning_rate
from qredit.engine.making import GenerationMaker
from qredit.engine.memory import estimate_optimizer_bytes, get_free_bytes
from qredit.engine.mismatch import collect_mismatch_stats
from qredit.engine.model_limits import get_context_length
from qredit.engine.prompts import Prompts
from qredit.engine.replay.steps import Replay
from qredit.engine.resume import deserialize_generation, serialize_generation
from qredit.engine.run_state import METRICS, POSITION, PROMPTS, StatefulPart, load_state
from qredit.engine.sampling import RolloutSampler
from qredit.engine.scorer import Scorer
from qredit.engine.stage_state import StageState
from qredit.engine.step import MicrobatchPosition, ScoredMicrobatch, Step
from qredit.engine.step_credit import StepCredit
from qredit.engine.step_log import StepLog, collect_covariance, compute_metrics, list_success
from qredit.engine.teacher import Teacher
from qredit.environments.episode import EpisodePlayer
from qredit.environments.protocol import EnvironmentFactory
from qredit.environments.source import EpisodeSource, is_all_chat
from qredit.objectives.parsing import parse
from qredit.rewards import make_reward_function
from qredit.rewards.finite_rewards import add_reward_checks
from qredit.rewards.reward_spec import environment as environment_reward
from qredit.rollouts.answer_end import describe_end_conflict, describe_plain_prompts, get_eos_token_ids
from qredit.rollouts.collate import Rows, choose_tails
from qredit.rollouts.field_functions import FieldFunction
from qredit.rollouts.field_maker import RolloutMaker
from qredit.rollouts.format import Format, TokenFormat, is_chat
from qredit.rollouts.retry_hint import make_hint_levels
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.protocol import Sampler
from qredit.samplers.think_then_answer import (
    NOTHING_DRAWN,
    ThinkThenAnswer,
    draw_completions,
    go_on_thinking,
    think,
)
from qredit.samplers.transformers import TransformersSampler
from qredit.samplers.vllm.choice import measure_longest
from qredit.samplers.vllm.sampler import VllmSampler
from qredit.shared_prefix.check_padding import check_padding
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.patch_forward import enable_token_scoring
from qredit.shared_prefix.verify import verify
from qredit.trl.accelerate_backend import AccelerateBackend
from qredit.trl.checkpointing import Checkpointer
from qredit.trl.checks import (
    check_drawing,
    check_episodes,
    check_hints,
    check_replay,
    check_sampling,
    check_steps,
    choose_hint_template,
    resolve_field_functions,
)
from qredit.trl.config import QreditConfig
from qredit.trl.dataset_encoding import (
    check_columns,
    check_hints_fit,
    encode_datasets,
    list_eval_datasets,
)
from qredit.trl.environment_factory import FactorySource, choose_source, make_rewards, with_weights
from qredit.trl.model_setup import choose_layout, score_at_temperature_one
from qredit.trl.placeholder_loader import EpochSampler, PlaceholderDataset
from qredit.trl.prompt_order import choose_prompt_order
from qredit.trl.refused_settings import check_arguments
from qredit.trl.replay_callback import ReplayCallback
from qredit.trl.revert import check_revertible
from qredit.trl.reward_calculator import RewardCalculator
from qredit.trl.run_trainer import RunTrainer
from qredit.trl.teachers import TeacherSpec, teachers_of
from qredit.trl.vllm_sampling import (
    check_vllm_settings,
    describe_sampler,
    hidden_from_trl,
    iterate_prompts,
    make_vllm_sampler,
)
from qredit.utils.errors import QreditError
from qredit.utils.seed import EVALUATION_STREAM, derive_seed
from qredit.utils.stateful import Stateful

_LATEST = ("q", "guide/paft")  # of several steps that are logged together the last counts: means were never used
_log = get_logger(__name__)


class QreditTrainer(RunTrainer, GRPOTrainer):  # type: ignore[misc]
    """Train a model with an `Objective` from a data set of prompts and gold answers.

    Args:
        model: a model id or path, or a loaded model (full fine-tuning needs float32 weights; autocast does the rest).
        objective: an `Objective`, or its text form such as "garl(q=0.75)".
        args: a QreditConfig.
        train_dataset, eval_dataset: columns `prompt` (text or chat messages) and `args.answer_column`, which may be
            missing where neither objective nor rewards read it; `aliases` (list of text), other right answers, counts
            as `args.aliases` says; other columns pass through to the reward functions.
        reward_funcs: TRL reward functions; None is exact match of the sampled answer. They also receive `response` (the
            sampled answer as text) and `rationale`.
        fields: makers of batch fields that the objective needs and nothing here fills by itself
            (`rollouts/field_functions.py`), or those of `qredit.fields`.
        teachers: what fills the batch field `logp@NAME` (and `kl@NAME` and its like), by NAME: a model with the same
            token ids, its path, a `Hint`, or a `Teacher` of one's own. `reference`, the model the run begins with, is
            always there.
        prompts: which prompts come next, by their index in `train_dataset` (`args.skip_long` drops rows of it first),
            or a curriculum (`qredit.curricula`) that makes such a sampler from the columns of the data. None visits all
            of them in each epoch, by a permutation of its own; further prompts of `args.dynamic_sampling` are then
            drawn from the whole data set, else they are the next ones of `prompts`. It has observed every generation
            before the one that it is asked for, whatever the loader fetches ahead. An epoch, as steps and schedules
            count it, stays as many prompts as the data set has.
        learners: models that learn beside the policy and fill batch fields (`engine/learner.py`), on its device.
        tools: functions that the model may call, with types and a docstring as TRL asks for. A rollout is then an
            episode of up to `args.max_turns` turns (docs/environments.md).
        environment: a class of environments, or a function that makes one (`qredit.environments`), in the place of
            tools. Without `reward_funcs` its own rewards, summed over the turns, are the reward.
        environment_factory: as in TRL (`trl/environment_factory.py`): a class whose public methods are the tools of an
            episode, or several by the name that a row's column `environment` holds. `get_reward`, where they have it,
            counts beside `reward_funcs` with the weight 1, under the name of the class.
        processing_class, callbacks: as in TRL.
        **kwargs: optimizers, quantization_config, peft_config and reward_processing_classes, as in TRL. Its
            rollout_func is refused.

    Raises:
        QreditError: a data set, model or setting that cannot be used, before any compute.
    """

    objective: Objective
    train_dataset: Any
    eval_dataset: Any
    chat_template_kwargs: dict[str, Any]

    _paper = {  # noqa: RUF012  # TRL's attribute
        "title": "How Fast Should a Model Commit to Supervision? Training Reasoning Models on the Tsallis Loss "
        "Continuum",
        "id": "2604.25907",
        "citation": textwrap.dedent("""\
            @article{lin2026commit,
                title  = {{How Fast Should a Model Commit to Supervision?
                           Training Reasoning Models on the Tsallis Loss Continuum}},
                author = {Chu-Cheng Lin and Eugene Ie},
                year   = 2026,
                eprint = {arXiv:2604.25907},
            }"""),
    }

    def __init__(
        self,
        model: str | nn.Module,
        objective: Objective | str,
        args: QreditConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        reward_funcs: Callable[..., Any] | str | list[Any] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        fields: Mapping[str, FieldFunction | RolloutMaker] | None = None,
        teachers: Mapping[str, TeacherSpec] | None = None,
        prompts: PromptSampler | Curriculum | None = None,
        learners: Sequence[Learner] = (),
        tools: Sequence[Callable[..., Any]] | None = None,
        environment: EnvironmentFactory | None = None,
        environment_factory: Callable[[], Any] | Mapping[str, Callable[[], Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.objective = parse(objective) if isinstance(objective, str) else objective
        self.objective.check()
        args = args if args is not None else QreditConfig()
        if not isinstance(args, QreditConfig):
            raise QreditError(f"args must be a QreditConfig, got {type(args).__name__}")
        check_arguments(model, args, kwargs)
        check_sampling(self.objective, args)
        check_vllm_settings(args)
        self.learners = Learners(learners)
        self.episodes = choose_source(tools, environment, environment_factory, args.tool_seconds)
        check_episodes(self.objective, args, self.episodes, {*(fields or {}), *self.learners.fills}, self.learners)
        check_drawing(self.objective, args, self.episodes, fields or {})
        makers = resolve_field_functions(self.objective, fields or {}, teachers or {}, self.learners)
        check_steps(self.objective, args)
        check_hints(self.objective, args)
        check_replay(self.objective, args)
        own = environment_reward if environment is not None else make_reward_function("exact_match")
        earned = make_rewards(self.episodes) if isinstance(self.episodes, FactorySource) else []
        given = reward_funcs if reward_funcs is not None else [] if earned else [own]
        rewards = [*(given if isinstance(given, list) else [given]), *earned]
        args = with_weights(args, earned)
        needed = find_gold_reader(self.objective, rewards, args.hint_failed)
        for name, dataset in {"train_dataset": train_dataset, **list_eval_datasets(eval_dataset)}.items():
            check_columns(dataset, args.answer_column, name, needed)
        self.auto_q = AutoQ(self.objective) if find_auto(self.objective) is not None else None
        looks: list[TrainerCallback] = (
            []
            if self.auto_q is None
            else [InitialQCallback(self.auto_q, self._measure_initial_likelihood, args.num_generations, _log.info)]
        )
        if args.replay_of_run is not None:
            looks.append(ReplayCallback(self._take_replay_steps))
        with hidden_from_trl(args):
            super().__init__(
                model=model,
                reward_funcs=[add_reward_checks(function) for function in rewards],
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                callbacks=[*(callbacks or []), *looks],
                **kwargs,
            )
        if self._is_vlm:
            raise QreditError("vision-language models are not supported; give a text model and its tokenizer")
        self._check_setup(kwargs.get("peft_config"))
        chat = self.episodes is not None and self._tell_tools(self.episodes)
        self.format = TokenFormat(
            Format.of(
                self._tokenizer,
                args.thinking_opening,
                args.thinking_closing,
                args.answer_seam,
                args.answer_end,
                chat=is_chat(self.train_dataset["prompt"][:], self._tokenizer),
                template=self.chat_template_kwargs,
            ),
            self._tokenizer,
        )
        self._warn_of_ends()
        self.player = None if self.episodes is None else self._make_player(self.episodes, chat)
        self.tails = choose_tails(self.objective.needs)
        self.train_dataset, self.eval_dataset = encode_datasets(
            self.train_dataset,
            self.eval_dataset,
            args,
            self.format,
            get_context_length(self.model),
            self.chat_template_kwargs,
            choose_hint_template(self.objective),
            likely=bool(ANSWER_FIELDS & self.objective.needs),
            budget=self.whole_budget,
        )
        if isinstance(self.episodes, FactorySource):
            for name, dataset in {"train_dataset": self.train_dataset, **list_eval_datasets(self.eval_dataset)}.items():
                self.episodes.check_rows(dataset, name)
        self.recorder = next((one for one in callbacks or () if isinstance(one, CreditRecorder)), None)
        self._rollout_writer = next((one for one in callbacks or () if isinstance(one, RolloutWriter)), None)
        self.guard = next((one for one in callbacks or () if isinstance(one, CollapseGuard)), None)
        self._validation = next((one for one in callbacks or () if isinstance(one, ValidationCallback)), None)
        if self.guard is not None:
            self.guard.attach(self)
        self.overrides = tuple(part for part in (self.auto_q, self.guard) if part is not None)
        self._current_objective = CurrentObjective(self.objective, self.overrides)
        score_at_temperature_one(self.model, self.objective, args)
        named = teachers_of(self, teachers or {}, self._fields_read)
        self.layout = choose_layout(self.model, self.objective, args)
        if args.drawing_of_run is not None:
            args.drawing_of_run.check_vocabulary(int(self.model.get_input_embeddings().weight.shape[0]))
        if learners or args.drawing_of_run is not None:
            enable_token_scoring(self.model)  # these may run the policy where the loss takes TRL's own pass
        if self.layout is not pack:
            longest = max(map(len, self.train_dataset[PROMPT_IDS])) + len(self.format.close_ids)
            check_padding(self.model, longest + self.whole_budget.thinking + self.whole_budget.answer)
        self._weights_replaced = 0
        self._build(makers, named, prompts)
        self._generation: Generation | None = None
        self._evaluated = (0, -1)
        self._verified = False
        self.step_success: list[float] | None = None

    def _tell_tools(self, episodes: EpisodeSource) -> bool:
        """Put tools where the model reads of them: into the chat template, or behind each prompt; which of the two."""
        sets = [self.train_dataset, *list_eval_datasets(self.eval_dataset).values()]
        chat = is_all_chat([prompt for dataset in sets for prompt in dataset["prompt"][:]])
        self.chat_template_kwargs = episodes.add_to_template(self.chat_template_kwargs or {}, chat)

        def told(dataset: Dataset) -> Dataset:
            prompts = [episodes.add_to_prompt(prompt, chat) for prompt in dataset["prompt"][:]]
            columns = dataset.column_names
            rest = dataset.remove_columns(["prompt"])
            return concatenate_datasets([Dataset.from_dict({"prompt": prompts}), rest], axis=1).select_columns(columns)

        if not episodes.tools or chat:
            return chat
        self.train_dataset = told(self.train_dataset)
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {name: told(part) for name, part in self.eval_dataset.items()}
        elif self.eval_dataset is not None:
            self.eval_dataset = told(self.eval_dataset)
        return chat

    def _make_player(self, episodes: EpisodeSource, chat: bool) -> EpisodePlayer:
        """What plays episodes, once the layout of a turn is known."""
        return episodes.make_player(self.format, chat, self.chat_template_kwargs, self.args.episode_budget_of_run)

    @property
    def whole_budget(self) -> TokenBudget:
        """Tokens that may follow a prompt, those of observations among them."""
        if self.player is None or self.episodes is None:
            return self.args.budget
        return self.episodes.whole_budget(self.player.budget, self.format)

    def _warn_of_ends(self) -> None:
        """Say what may surprise of how answers end and of prompts that are plain texts."""
        for notice in (
            describe_end_conflict(self.format, get_eos_token_ids(self.model), self.chat_template_kwargs),
            describe_plain_prompts(self.format, self.train_dataset["prompt"][:]),
        ):
            if notice is not None:
                _log.warning(notice)

    def _build(
        self,
        makers: Mapping[str, FieldFunction | RolloutMaker],
        teachers: Mapping[str, Teacher],
        given: PromptSampler | Curriculum | None,
    ) -> None:
        """The parts of a step, given what only this engine knows."""
        args, needs = self.args, self._fields_read
        self.collective = together = AccelerateBackend(self.accelerator)
        self.template, self.budget = dict(self.chat_template_kwargs or {}), args.budget
        self.chat = any(not isinstance(prompt, str) for prompt in self.train_dataset["prompt"])
        self.rows_per_answer_batch = int(args.generation_batch_size // together.size)
        accumulated, pad = args.gradient_accumulation_steps, self._tokenizer.pad_token_id
        self.sampler = self._make_sampler()
        self.scorer = self.make_scorer(teachers)
        order = choose_prompt_order(
            given,
            self.train_dataset,
            args,
            shuffle=self.shuffle_dataset,
            per_generation=self._per_generation,
            period=self._period,
        )
        self.prompts = Prompts(self.train_dataset, order, together, self._per_generation)
        self._further = None if given is None else order
        rewards = RewardCalculator(self)
        play = None if self.player is None else self._play
        self.rollout_sampler = RolloutSampler(
            *(together, self.format, self._tokenizer, self._draw, rewards, makers, play),
            log=self._log_made_fields,
            answer=self._answer,
            score=rewards.score,
        )
        self.hinted_retry = self._make_hinted_retry(rewards)
        self.rule_sampler = self._make_rule_sampler(rewards)
        self.collator = Collator(
            *(together, needs, self.tails, pad, self.scorer, self.format.close_ids),
            serves_several_steps=self._period > accumulated,
            learners=self.learners,
            exact_sampler=not (args.draw.is_biased or args.bf16 or args.fp16 or args.use_vllm),
            sampler_differs=args.corrects_sampler,
        )
        self.stages = StageState(self.objective)
        self.step_credit = StepCredit(accumulated, self.stages, together)
        # What takes a step; `_step`, which is TRL's, counts micro-batches.
        self.step = Step(self.scorer, self.stages, self.step_credit, together, together, self.learners)
        self.generations = GenerationMaker(
            *(self.collator, self.scorer, self.stages, together),
            rollouts=args.per_device_train_batch_size,
            window=accumulated,
            repeats=self.num_iterations,
            seed=args.seed,
        )
        self.step_log = StepLog(together)
        self.replay = self._make_replay()
        self.checkpointer = self._make_checkpointer()

    def _make_sampler(self) -> Sampler:
        """What draws rollouts: the policy itself, or an engine that is given its weights."""
        args = self.args
        if not args.use_vllm:
            return TransformersSampler(self.model, self._tokenizer.pad_token_id, args.draw)
        asked = [] if self._validation is None else self._validation.examples
        prompts = [self.format.prompt_ids(example.prompt, **self.template) for example in asked]
        sets = [self.train_dataset, *list_eval_datasets(self.eval_dataset).values()]
        length = measure_longest([*prompts, *iterate_prompts(sets)], self.format, self.whole_budget)
        context = get_context_length(self.model)
        if args.hint_failed is not None and context is not None:
            length = context  # hints are written while the run goes on, as long as they fit
        sampler = make_vllm_sampler(
            args, self.model, self._tokenizer, self.accelerator, length, lambda: self._weights_version
        )
        _log.info(f"rollouts are sampled with {describe_sampler(args, sampler)}")
        return sampler

    @property
    def _weights_version(self) -> tuple[int, int]:
        """What tells one state of the weights from another: steps done, and how often others took their place."""
        return self.state.global_step, self._weights_replaced

    def make_answer_sampler(self) -> Sampler:
        if not isinstance(self.sampler, VllmSampler):
            return super().make_answer_sampler()
        self.sampler.sync(self.accelerator.unwrap_model(self.model))
        return replace(self.sampler, draw=SamplingParams())

    def _make_replay(self) -> Replay | None:
        """What learns again from earlier rollouts, where that was asked for."""
        rule, args = self.args.replay_of_run, self.args
        if rule is None:
            return None
        rollouts = args.per_device_train_batch_size * args.gradient_accumulation_steps
        return Replay(rule, self.objective.reduction, self.scorer, self.collective, rollouts, args.seed)

    def _make_hinted_retry(self, rewards: RewardCalculator) -> HintedRetry | None:
        """What samples groups without a success again, where that was asked for."""
        kind, template, context = self.args.hint_failed, self.args.hint_template, get_context_length(self.model)
        if kind is None:
            return None
        levels = make_hint_levels(kind, template)
        check_hints_fit(self.train_dataset, levels, self.format, self.budget, context, self.template)
        return HintedRetry(self.rollout_sampler, levels, self.template, self.budget, context, rewards.score)

    def _make_rule_sampler(self, rewards: RewardCalculator) -> RuleSampler | None:
        """What draws by a rule, where one was given."""
        rule, pad = self.args.drawing_of_run, self._tokenizer.pad_token_id
        if rule is None:
            return None
        return RuleSampler(
            *(rule, self.rollout_sampler, self._draw, self._go_on),
            measure_entropy=lambda drawn: measure_token_entropy(
                drawn, self.scorer.forward(self.model_wrapped), pad, self.scorer.device
            ),
            score=rewards.score,
            seed=self.args.seed,
        )

    def make_scorer(self, teachers: Mapping[str, Teacher]) -> Scorer:
        """What scores rows with this trainer's model."""
        device, needs = self.accelerator.device, self.objective.needs
        resident = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
        unsharded = self.accelerator.distributed_type in resident
        return Scorer(
            needs=needs,
            tails=self.tails,
            temperature=1.0 if "answer_logp" in needs else float(self.temperature),
            layout=self.layout,
            teachers=teachers,
            autocast=self.accelerator.autocast,
            # both are asked for anew: wrappers and the optimiser come later
            policy=lambda: self.accelerator.unwrap_model(self.model),
            free_bytes=lambda: get_free_bytes(device) - estimate_optimizer_bytes(self.scorer.policy(), self.optimizer),
            device=device,
            native_forward=self._score_with_trl,
            unsharded=unsharded,
            agree_on_passes=int if unsharded else lambda passes: max(self.collective.gather([passes])),
            rows_per_forward=self.args.rows_per_forward,
        )

    def _score_with_trl(self, model: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of each completion token by TRL's own pass."""
        batch = rows.batch
        assert batch.ids is not None
        logp, entropy, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([rows.prompt_ids, batch.ids], 1),
            torch.cat([rows.prompt_mask, batch.mask.long()], 1),
            batch.mask.shape[1],
            compute_entropy=True,
        )
        return logp, entropy

    def _make_checkpointer(self) -> Checkpointer:
        """What a checkpoint holds of this run."""
        parts: list[Stateful] = [
            StatefulPart(POSITION, self._position, self._go_to),
            self.stages,
            StatefulPart(
                METRICS, lambda: dict(self._metrics["train"]), lambda kept: self._metrics["train"].update(kept)
            ),
            self.prompts,
            *self.overrides,
        ]
        own: list[Stateful] = [
            StatefulPart("rollouts", self._rollouts_in_use, self._restore_rollouts),
            *self._learner_files,
            *self._replay_memory,
        ]
        label, expansion = str(self.objective), self.objective.expansion
        return Checkpointer(self.args, self.accelerator, label, expansion, parts, own)

    @property
    def _fields_read(self) -> frozenset[str]:
        """The batch fields that the objective and the learners read."""
        return self.objective.needs | self.learners.needs

    @property
    def _replay_memory(self) -> list[Stateful]:
        return [] if self.replay is None else [self.replay.memory]

    @property
    def _learner_files(self) -> list[LearnerFile]:
        return [LearnerFile(learner) for learner in self.learners.learners]

    def _position(self) -> dict[str, Any]:
        return {"step": self._step, "evaluated": self._evaluated}

    def _go_to(self, position: Mapping[str, Any]) -> None:
        self._step, self._evaluated = position["step"], tuple(position["evaluated"])

    def _rollouts_in_use(self) -> dict[str, Any]:
        """What a checkpoint holds of them: nothing where the next micro-batch samples anew."""
        return serialize_generation(self._generation) if self.inside_generation and self._generation is not None else {}

    def _restore_rollouts(self, kept: Mapping[str, Any]) -> None:
        self._generation = deserialize_generation(kept) if kept else None

    # --- what callbacks ask for (`qredit.engine.protocols`)

    def _measure_initial_likelihood(self) -> Mapping[str, Tensor]:
        """The likelihood facts of some prompts, before the first step."""
        self.model.train()
        look = InitialLikelihood(
            self.train_dataset,
            m=self.num_generations,
            at_once=max(self.args.per_device_train_batch_size // self.num_generations, 1),
            draw=self.rollout_sampler.draw_rows,
            collator=self.collator,
            score=lambda rows: self.scorer.score_batch_no_grad(self.model_wrapped, rows),
            seed=self.args.seed,
            most=NUM_INITIAL_PROMPTS,
        )
        return look.facts(self.current_objective(), self.collective)

    def check_revertible(self, slower: bool) -> None:
        check_revertible(self.args, whole=not (self.is_deepspeed_enabled or self.is_fsdp_enabled), slower=slower)

    def find_checkpoint(self, step: int) -> Path | None:
        found = find_newest_before(Path(self.args.output_dir), step)  # the main process chooses, for all
        name = self.collective.gather([None if found is None else found.name])[0]
        return None if name is None else Path(self.args.output_dir) / str(name)

    def restore_weights(self, checkpoint: Path) -> None:
        """Go back to a checkpoint's weights; rollouts of those that are given up are dropped."""
        self._load_from_checkpoint(str(checkpoint), self.accelerator.unwrap_model(self.model_wrapped))
        moments = torch.load(checkpoint / "optimizer.pt", map_location=self.accelerator.device, weights_only=True)
        self.optimizer.load_state_dict(moments)
        kept = load_state(checkpoint)
        if kept is not None:
            self.stages.state = kept["objective_state"]
        self.checkpointer.restore_own(checkpoint, [*self._learner_files, *self._replay_memory])
        self._generation = None
        self._weights_replaced += 1

    def scale_learning_rate(self, factor: float) -> None:
        scale_learning_rate(self.optimizer, self.lr_scheduler, factor)

    def first_group(self) -> dict[str, Any] | None:
        logs, m = self._logs, self.num_generations
        if not logs["prompt"]:
            return None
        return {
            "prompt": next(iter(logs["prompt"])),
            "completions": list(logs["completion"])[:m],
            "rewards": {name: list(values)[:m] for name, values in logs["rewards"].items()},
        }

    # --- rollouts

    def get_train_dataloader(self) -> Any:
        """What counts micro-batches; `_prepare_inputs` asks for the prompts (`qredit.trl.placeholder_loader` says
        why).
        """
        return self._get_dataloader(
            dataset=PlaceholderDataset(len(self.train_dataset)),
            description="Training",
            batch_size=self._train_batch_size * self.args.steps_per_generation,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        return EpochSampler(len(self.train_dataset), self.num_generations, self._per_generation, self._period)

    @property
    def _per_generation(self) -> int:
        """Prompts of one generation, over all processes."""
        return int(self.args.generation_batch_size // self.num_generations)

    @property
    def _period(self) -> int:
        """Micro-batches that one generation serves."""
        return int(self.args.steps_per_generation * self.num_iterations)

    @property
    def inside_generation(self) -> bool:
        """Whether the rollouts in use will serve the next micro-batch, too."""
        return bool(self._step % self._period)

    @property
    def _ends_generation(self) -> bool:
        """Whether a generation is used up by the optimiser step that ends with this micro-batch."""
        return bool((self._step + 1) % self._period == 0 or self.args.gradient_accumulation_steps > self._period)

    @property
    def off_policy(self) -> bool:
        """Whether the weights moved since the rollouts in use were sampled."""
        made = self._generation
        return bool(self.model.training and made is not None and made.made_at != self.state.global_step)

    @property
    def rollouts_per_prompt(self) -> int:
        """M, of training or evaluation."""
        return int(self.num_generations if self.model.training else self.num_generations_eval)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The micro-batch of this position, sampling a new generation when the last one is used up."""
        if not self.model.training:
            m = self.rollouts_per_prompt
            sampled = self.rollout_sampler.sampled(generation_batch, self._next_evaluation(), m)
            vocabulary = self.collator.vocabulary(sampled)
            return self.generations.make_microbatch(
                self.model_wrapped, sampled, self.current_objective(), vocabulary, self.state.global_step, m
            )
        position = self._step % self._period
        if position == 0 or self._generation is None:
            if position == 0:  # else a guard dropped the rollouts of these prompts, and they are sampled anew
                self.prompts.next_generation()
            self._generation = self._new_generation()
        return self._generation.microbatches[position % self.args.steps_per_generation]

    def _next_evaluation(self) -> int:
        """A number of its own for each evaluation batch, counted anew at every optimiser step."""
        step, batches = self._evaluated
        self._evaluated = (self.state.global_step, batches + 1 if step == self.state.global_step else 0)
        return EVALUATION_STREAM + derive_seed(*self._evaluated) % EVALUATION_STREAM

    def _new_generation(self) -> Generation:
        # Draws depend on the generation's number and not on how often something was drawn: a resumed run repeats them.
        args, number, m = self.args, self._step // self._period, self.rollouts_per_prompt
        rows = self.prompts.rows(self.prompts.share(self.prompts.asked), m)
        if self.rule_sampler is None:
            sampled = self.rollout_sampler.sampled(rows, number, m, self.current_objective().proposal)
        else:
            sampled, told = self.rule_sampler.sampled(rows, number, m)
            self.log_with_step(told)
        if args.dynamic_sampling:
            uniform = UniformPrompts(len(self.train_dataset), (args.seed, number), self.collective.size)
            further = uniform if self._further is None else self._further
            sampled, replaced = self.rollout_sampler.replace_equal_reward_groups(
                sampled, number, m, self.prompts, further, args.dynamic_sampling
            )
            self._metrics["train"]["groups/replaced"].append(replaced)
        if self.hinted_retry is not None:
            sampled, told = self.hinted_retry.retry(sampled, rows, number, m)
            self.log_with_step(told)
        if self._rollout_writer is not None:
            groups = self.collective.gather(group_by_prompt(sampled))
            self._rollout_writer.observe(self.state.global_step + 1, groups)
        return self.generations.make(self.model_wrapped, sampled, self.current_objective(), self.state.global_step, m)

    def _draw(self, prompts: list[list[int]], number: int, temperature: float | None = None) -> list[Trajectory]:
        """One rollout behind each prompt, perhaps at another temperature than the run's."""
        with self._ready_to_sample():
            return think(
                self.sampler if temperature is None else self._sampler_at(temperature),
                prompts,
                self.format,
                self.args.budget,
                stop_tokens=self.eos_token_ids,
                seed=self._seed_of(number),
            )

    def _seed_of(self, number: int) -> int:
        """Of a draw on this process, by its number."""
        return derive_seed(self.args.seed, number, self.accelerator.process_index)

    def _sampler_at(self, temperature: float) -> Sampler:
        """The sampler in use, at another temperature."""
        assert isinstance(self.sampler, TransformersSampler | VllmSampler)
        return replace(self.sampler, draw=replace(self.args.draw, temperature=temperature))

    def _go_on(self, beginnings: Sequence[Trajectory], number: int) -> list[Trajectory]:
        """One rollout behind each beginning of a rationale."""
        with self._ready_to_sample():
            return go_on_thinking(
                self.sampler,
                beginnings,
                self.format,
                self.args.budget,
                stop_tokens=self.eos_token_ids,
                seed=self._seed_of(number),
            )

    def _answer(self, heads: Sequence[Trajectory], number: int) -> list[Trajectory]:
        """An answer behind each trajectory that ends in a closing."""
        asked = ThinkThenAnswer(self.format, self.args.budget, tuple(self.eos_token_ids))
        requests = [asked.answer_request(one.prompt, one.segments) for one in heads]
        with self._ready_to_sample():
            seed = self._seed_of(number)
            answers = draw_completions(self.sampler, requests, seed)
        joined = [
            asked.join(one.prompt, one.segments, NOTHING_DRAWN, answer)
            for one, answer in zip(heads, answers, strict=True)
        ]
        return [replace(one, segments=two.segments, end=two.end) for one, two in zip(heads, joined, strict=True)]

    def _play(self, rows: Sequence[Mapping[str, Any]], prompts: list[list[int]], number: int) -> list[Trajectory]:
        """One episode behind each prompt."""
        assert self.player is not None
        with self._ready_to_sample():
            played = self.player.play(
                self.sampler,
                prompts,
                rows,
                stop_tokens=self.eos_token_ids,
                seed=self._seed_of(number),
                branching=self.args.branching_of_run if self.model.training else None,
            )
        if isinstance(self.episodes, FactorySource):
            self.environments = self.episodes.pool.playing  # TRL hands them to the reward functions
        return played

    @contextmanager
    def _ready_to_sample(self) -> Iterator[None]:
        """The sampler with the weights of this moment."""
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as unwrapped,
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            self.whole_weights(),
            self.accelerator.autocast(),
        ):
            self.sampler.sync(unwrapped)
            self._log_sync()
            yield

    def _log_made_fields(self, told: Mapping[str, float]) -> None:
        """Log what makers of fields say of the rollouts of training or of an evaluation."""
        for name, value in told.items():
            self._metrics["train" if self.model.training else "eval"][name].append(value)

    def _log_sync(self) -> None:
        """Log what the push of weights took, where there was one, and how many there were."""
        if not isinstance(self.sampler, VllmSampler) or not self.sampler.weights.seconds:
            return
        weights = self.sampler.weights
        self.log_with_step({"sampling/sync_seconds": weights.seconds, "sampling/weight_version": float(weights.count)})
        weights.seconds = 0.0

    # --- a step

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One micro-batch: sample if it is time, score, forward and backward; stopped by a loss that is not finite.

        Args:
            model: in its wrappers (DDP, PEFT), so that their hooks run.
            inputs: from the loader, which holds no rows.
            num_items_in_batch: transformers' count, not used.
        """
        self.rollout_sampler.seconds = self.scorer.seconds = 0.0
        start = time.perf_counter()
        # transformers' own step calls `_prepare_inputs`, which samples, and `_compute_loss`.
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        elapsed = time.perf_counter() - start
        times = {"sample": self.rollout_sampler.seconds, "score": self.scorer.seconds}
        for part, seconds in (times | {"update": elapsed - sum(times.values())}).items():
            self._metrics["train"][f"time/{part}"].append(seconds)
        self._stop_unless_finite(loss, "loss")
        return loss

    def current_objective(self) -> Objective:
        """The plain objective of this moment of training."""
        return self._current_objective.at(self.state.global_step / max(self.state.max_steps, 1))

    def _compute_loss(self, model: nn.Module, inputs: Microbatch) -> Tensor:
        objective = self.current_objective()
        if not self.model.training:
            return self._evaluation_loss(model, objective, inputs.rows)
        # The first micro-batch of a run is held against the ordinary forward pass, if that was asked for.
        if self.args.verify_prefix and not self._verified and self.layout is pack:
            found = verify(self.accelerator.unwrap_model(model), inputs.rows, bool(self.args.bf16 or self.args.fp16))
            _log.warning(f"shared prefix verified: gradients within {found:.1g} of the ordinary ones")
            self._verified = True
        assert self._generation is not None
        # Divided by the whole step's denominators already: TRL must not scale it again for gradient accumulation, and
        # does not (`loss_is_scaled_for_ga`).
        loss, learned = self.step.take(model, objective, self._generation, self._place())
        if self.recorder is not None:
            self.recorder.observe(self.state.global_step + 1, learned)
        self.log_with_step(learned.logged)
        further = {
            **self._collect_mismatch(objective, learned),
            **collect_covariance(learned.credited, learned.batch),
        }
        self._log_batch("train", objective, learned.batch, further)
        self._observe(learned)
        return loss

    def _observe(self, learned: ScoredMicrobatch) -> None:
        """Let prompt sampler and replay have what each group shows when it is learned from for the first time."""
        use, last = self._step % self._period, self.args.steps_per_generation - 1
        if use <= last:
            self.prompts.observe(learned.batch, complete=self.accelerator.sync_gradients, last=use == last)
            if self.replay is not None:
                self.replay.observe(learned)

    def _take_replay_steps(self) -> None:
        """Optimiser steps on earlier rollouts, behind the last one on a generation and at its learning rate."""
        assert self.replay is not None
        if self.inside_generation:
            return
        self.optimizer.zero_grad()
        with self.compute_loss_context_manager():
            for loss in self.replay.iterate_losses(self.model_wrapped, self.state.global_step + 1):
                self._stop_unless_finite(loss, "loss of replayed rollouts")
                self.collective.run(loss)
                norm = self._clip_grad_norm(self.model_wrapped) if self.args.max_grad_norm > 0 else None
                self._get_grad_norm(self.model_wrapped, norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.log_with_step(self.replay.logged)

    def _place(self) -> MicrobatchPosition:
        """Where the micro-batch that is learned from is in its generation."""
        return MicrobatchPosition(
            use=self._step % self._period,
            generations=max(self.current_gradient_accumulation_steps / self._period, 1.0),
            complete=self.accelerator.sync_gradients,
            ends_generation=self._ends_generation,
            off_policy=self.off_policy or self.args.corrects_sampler,
        )

    def _evaluation_loss(self, model: nn.Module, objective: Objective, rows: Rows) -> Tensor:
        """The loss of an evaluation batch as if it were a whole step."""
        batch = self.scorer.score_batch_no_grad(model, rows)
        credited = objective.evaluate(batch, self.stages.state)
        self._log_batch("eval", objective, batch)
        # Denominators are those of this batch alone: TRL averages the batches of an evaluation.
        logp = batch.require("logp", str(objective))
        return sum_terms(objective.numerators(logp, batch, credited), objective.denominators(batch, credited))

    def _collect_mismatch(self, objective: Objective, learned: ScoredMicrobatch) -> Mapping[str, Tensor]:
        """What sampler and trainer make of the same tokens by the same weights; nothing where those have moved."""
        if not self.args.use_vllm or self.off_policy:
            return {}
        return collect_mismatch_stats(objective, learned.rows.batch, learned.batch)

    def _log_batch(
        self, mode: str, objective: Objective, batch: RolloutBatch, further: Mapping[str, Tensor] | None = None
    ) -> None:
        """Collect the facts of this micro-batch; at the step's last one, log what they say, over all processes."""
        self.step_log.add(objective, batch, further)
        if mode == "train" and not self.accelerator.sync_gradients:
            return
        facts = self.step_log.take()
        found = compute_metrics(objective, facts)
        if mode == "train":
            self._update_control(facts, found)
        for name, value in found.items():
            # TRL logs the mean of what was noted since the last entry. Of q the newest value counts.
            before = () if name in _LATEST else self._metrics[mode][name]
            self._metrics[mode][name] = [*before, value]

    def _update_control(self, facts: Mapping[str, Tensor], found: dict[str, float]) -> None:
        """Tell guide and guard what this step's groups showed; `found` is what will be logged of it."""
        self.step_success = list_success(facts)
        if self.auto_q is None:
            return
        replaced = self.guard is not None and self.guard.instead
        found["guide/paft"] = float(replaced or self.auto_q.estimator == "paft")
        decision = None if replaced else self.auto_q.observe(self.state.global_step + 1, facts)
        if decision is not None:
            _log.info(f"{decision.estimator}(q={decision.q:g}) from step {decision.step + 1}: {decision.reason}")

    # --- checkpoints

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` takes the newest whole checkpoint of the output folder.

        Raises:
            QreditError: no whole checkpoint to resume from, or the one named is torn.
        """
        if resume_from_checkpoint:
            resume_from_checkpoint = str(self.checkpointer.restore(resume_from_checkpoint))
            if PROMPTS in self.checkpointer.missing_parts:
                self.prompts.skip_generations(-(-self._step // self._period))
        else:
            self.prompts.begin()
        self._weights_replaced += 1  # a trainer may train twice, and a checkpoint be loaded in between
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._weights_replaced += 1

    def _card_settings(self) -> dict[str, Any]:
        args = self.args
        return {
            "rollouts per prompt": self.num_generations,
            "learning rate": f"{args.learning_rate:g}",
            "tokens of a completion": f"{args.max_completion_length}, {args.answer_budget} of them for the answer",
        }
