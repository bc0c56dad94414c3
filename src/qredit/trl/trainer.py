"""QreditTrainer: TRL's GRPOTrainer, with whole groups, the gold answer's likelihood, and an Objective for its loss.

What is replaced: sampling (thinking is closed, by force if need be, and the gold answer appended as ids), the order of
rows (groups stay whole), the loss, and checkpoints. What stays TRL's: rewards, logging, evaluation, PEFT, distribution,
the fused head that scores tokens without their logits, model cards. The facts about TRL that this rests on are held by
tests/test_trl_contract.py.
"""

import shutil
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType, gather_object, is_peft_model
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints
from trl import GRPOTrainer
from trl.data_utils import is_conversational
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import add_fused_lm_head

from qredit.batch import RolloutBatch
from qredit.chain import TOLD, Scope, State, When, kinds
from qredit.diagnostics import commitment, likelihood_facts, likelihood_metrics, mean_or_nan, no_success, success
from qredit.errors import QreditError
from qredit.guide.objective import automatic
from qredit.objective import Credited, Objective, sum_terms
from qredit.prefix.install import NUCLEUS, STATES, Wanted, score, score_chosen, scores_tokens, share_prefix
from qredit.prefix.layout import Continuing, Layout
from qredit.prefix.packing import going_on, pack, prompts_of, repeat
from qredit.prefix.support import inside
from qredit.prefix.verify import verify
from qredit.rewards import as_reward
from qredit.rollout.collate import Rows, Sampled, all_equal, collate, tails_for, whole_groups
from qredit.rollout.fields import Maker, Seen, Values
from qredit.rollout.format import Format, TokenFormat
from qredit.rollout.sample import Rollout, sample
from qredit.seed import mix
from qredit.text import parse
from qredit.trl import checkpoint, resume
from qredit.trl.attention import INFLUENCE, LOCALITY, token_roles
from qredit.trl.checks import check_positions, check_sampling, check_steps, check_weights, makers_for
from qredit.trl.config import QreditConfig
from qredit.trl.data import ANSWER_IDS, PROMPT_IDS, check_columns, check_enough, context_of, encode_examples
from qredit.trl.guard import Guard
from qredit.trl.guide import LOOKED, Guide
from qredit.trl.logs import length_facts, length_metrics, reward_metrics
from qredit.trl.memory import bytes_per_token, free_bytes, rows_that_fit, yet_to_come
from qredit.trl.order import GroupOrder
from qredit.trl.record import CreditRecorder, Learned
from qredit.trl.reference import REFERENCE, Reference
from qredit.trl.rewards import checked_reward
from qredit.trl.whole_step import Generation, Microbatch, add_into, evaluated_together, shared_denominators

_EVALUATION = 1 << 40  # keeps the seeds of evaluation rollouts apart from those of training
_FURTHER = 1 << 41  # and those of further prompts apart from both
_BEFORE = 1 << 42  # and those of the look before the first step
_log = get_logger(__name__)

Scores = dict[str, Tensor]  # what a forward pass tells of each completion token, by the name of the batch field


class QreditTrainer(GRPOTrainer):  # type: ignore[misc]
    """Train a model with an `Objective` from a data set of prompts and gold answers.

    Args:
        model: a model id or path, or a loaded model (full fine-tuning needs float32 weights; autocast does the rest).
        objective: an `Objective`, or its text form such as "garl(q=0.75)".
        args: a QreditConfig.
        train_dataset, eval_dataset: columns `prompt` (text or chat messages) and `args.answer_column`; `aliases` (list
            of text) counts for the reward; other columns pass through to the reward functions.
        reward_funcs: TRL reward functions; None is exact match of the sampled answer. They also receive `response` (the
            sampled answer as text) and `rationale`.
        fields: makers of batch fields that the objective needs and nothing here fills by itself (`rollout/fields.py`).
        processing_class, callbacks, optimizers, quantization_config, peft_config: as in TRL.

    Raises:
        QreditError: a data set, model or setting that cannot be used, before any compute.
    """

    train_dataset: Any
    eval_dataset: Any

    _tag_names = ["trl", "qredit"]  # noqa: RUF012  # TRL's attribute
    _name = "qredit"
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
        fields: Mapping[str, Maker] | None = None,
        **kwargs: Any,
    ) -> None:
        self.objective = parse(objective) if isinstance(objective, str) else objective
        args = args if args is not None else QreditConfig()
        if not isinstance(args, QreditConfig):
            raise QreditError(f"args must be a QreditConfig, got {type(args).__name__}")
        check_sampling(self.objective, args)
        self.makers = makers_for(self.objective, fields or {})
        check_steps(self.objective, args)
        check_columns(train_dataset, args.answer_column, "train_dataset")
        for name, dataset in _evaluations(eval_dataset).items():
            check_columns(dataset, args.answer_column, name)
        rewards = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs or as_reward("exact_match")]
        super().__init__(
            model=model,
            reward_funcs=[checked_reward(function) for function in rewards],
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=[*(callbacks or []), _FollowEpoch(self), _LookFirst(self)],
            **kwargs,
        )
        if self._is_vlm:
            raise QreditError("vision-language models are not supported; give a text model and its tokenizer")
        check_weights(self.model, kwargs.get("peft_config"))
        check_positions(self.model)
        self.format = TokenFormat(
            Format.of(self._tokenizer, args.thinking_opening, args.thinking_closing, args.answer_seam, args.answer_end),
            self._tokenizer,
        )
        self.tails = tails_for(self.objective.needs)
        self._encode_data(args)
        self._score_at_temperature_one(args)
        self.reference = Reference(self.model) if REFERENCE in self.objective.needs else None
        self.layout = self._layout(args)
        self.objective_state: dict[str, State] = self.objective.init_state()
        self.rollouts: list[Rollout] = []
        self._pending_statistics: dict[str, State] = {}
        self._generation: Generation | None = None
        self._step_credit: list[Credited] = []
        self._facts: list[dict[str, Tensor]] = []
        self._evaluated = (0, -1)
        self._seconds = {"sample": 0.0, "score": 0.0}
        self._writing_to: Path | None = None
        self._verified = False
        self._keeps_prompts: bool | None = None
        self._tokens_that_fit: int | None = None
        self.step_success: list[float] | None = None
        self.guide = Guide(self.objective) if automatic(self.objective) is not None else None
        self.recorder = next((one for one in callbacks or () if isinstance(one, CreditRecorder)), None)
        self.guard = next((one for one in callbacks or () if isinstance(one, Guard)), None)
        if self.guard is not None:
            self.guard.attach(self)

    def _encode_data(self, args: QreditConfig) -> None:
        """Check every prompt and answer, and keep their ids as columns."""
        context = context_of(self.model)

        def encoded(dataset: Dataset, name: str) -> Dataset:
            ready, dropped = encode_examples(
                dataset,
                args.answer_column,
                self.format,
                args.budget,
                context,
                args.skip_long,
                self.chat_template_kwargs,
                name,
            )
            if dropped:
                _log.warning(f"{name}: {dropped} prompts were too long and are left out")
            return ready

        self.train_dataset = encoded(self.train_dataset, "train_dataset")
        per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        needed = max(args.generation_batch_size, per_step) // args.num_generations
        check_enough(len(self.train_dataset), needed, "train_dataset")
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {
                name: encoded(part, f"eval_dataset '{name}'") for name, part in self.eval_dataset.items()
            }
        elif self.eval_dataset is not None:
            self.eval_dataset = encoded(self.eval_dataset, "eval_dataset")

    def _score_at_temperature_one(self, args: QreditConfig) -> None:
        """The gold answer's likelihood is wanted at temperature 1 and exact: TRL's head divides by the sampling
        temperature, and under bf16 rounds each token's logit by some hundredths of a nat.
        """
        if "answer_logp" in self.objective.needs and (args.temperature != 1.0 or args.bf16 or args.fp16):
            base = self.model.get_base_model() if is_peft_model(self.model) else self.model
            add_fused_lm_head(
                base,
                temperature=1.0,
                cast_lm_head_to_fp32=True,
                outputs=("log_probs", "entropy"),
            )

    def _layout(self, args: QreditConfig) -> Callable[[Rows], Layout] | None:
        """How rows lie in a forward pass: prompts computed once if the model can, said if it cannot.

        Where nothing is shared, accelerators keep TRL's fused head, whose tiles are slow on a CPU.
        """
        reason = share_prefix(self.model) if args.shared_prefix else "it was asked for"
        if reason is None:
            return pack
        told = kinds(self.objective.needs) & {NUCLEUS, *STATES, REFERENCE}
        if told and not scores_tokens(self.model):
            raise QreditError(f"{self.objective} needs {', '.join(sorted(told))}, which this model's head cannot tell")
        if args.shared_prefix:
            _log.warning(f"prompts are computed once for each rollout, not once for each group: {reason}")
        return repeat if (told or args.use_cpu) and scores_tokens(self.model) else None

    # --- rollouts

    def _get_train_sampler(self, dataset: Dataset | None = None) -> GroupOrder:
        self.order = GroupOrder(
            prompts=len(dataset if dataset is not None else self.train_dataset),
            rollouts=self.num_generations,
            per_generation=self.args.generation_batch_size // self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
            shuffle=self.shuffle_dataset,
        )
        return self.order

    def drop_rollouts(self) -> None:
        """Sample anew for the next step: the weights are no longer those that the rollouts in use belong to."""
        self._generation = None

    @property
    def _period(self) -> int:
        """Micro-batches that one generation serves."""
        return int(self.args.steps_per_generation * self.num_iterations)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The micro-batch of this position, sampling a new generation when the last one is used up."""
        if not self.model.training:
            sampled = self._sampled(generation_batch, number=self._next_evaluation())
            return self._collated(sampled, self._vocabulary(sampled))
        position = self._step % self._period
        if position == 0 or self._generation is None:
            self._generation = self._new_generation(generation_batch)
        return self._generation.microbatches[position % self.args.steps_per_generation]

    def _next_evaluation(self) -> int:
        """A number of its own for each evaluation batch, counted anew at every optimiser step."""
        step, batches = self._evaluated
        self._evaluated = (self.state.global_step, batches + 1 if step == self.state.global_step else 0)
        return _EVALUATION + mix(*self._evaluated) % _EVALUATION

    def _new_generation(self, inputs: list[dict[str, Any]]) -> Generation:
        number = self._step // self._period
        sampled = self._sampled(inputs, number)
        if self.args.dynamic_sampling:
            sampled = self._with_spread(sampled, number)
            self.rollouts = [one.rollout for one in sampled]
        size = self.args.per_device_train_batch_size
        vocabulary = self._vocabulary(sampled)
        microbatches = [
            self._collated(sampled[start : start + size], vocabulary) for start in range(0, len(sampled), size)
        ]
        denominators = shared_denominators(
            [self.objective.denominators(micro.rows.batch) for micro in microbatches],
            self.args.gradient_accumulation_steps,
            self.num_iterations,
            self.accelerator,
        )
        return Generation(microbatches, denominators, made_at=self.state.global_step)

    def _vocabulary(self, sampled: Sequence[Sampled]) -> Tensor | None:
        """The ids that occur in a generation, on all processes, where the objective asks for prediction errors.

        Gold answers among them: one set for every stage and every tail.
        """
        if not STATES & self.objective.needs:
            return None
        own = {token for one in sampled for token in (*one.rollout.ids, *one.gold)}
        return torch.tensor(sorted(set().union(*gather_object([own]))), device=self.accelerator.device)

    def _collated(self, sampled: Sequence[Sampled], vocabulary: Tensor | None) -> Microbatch:
        seed = mix(self.args.seed, self.state.global_step)
        rows = collate(sampled, self.tails, self._tokenizer.pad_token_id, seed, self.accelerator.device)
        rows = self._with_passes(replace(rows, vocabulary=vocabulary))
        objective = self._objective_now()
        fixed = objective.when == When.ROLLOUT and objective.scope != Scope.BATCH
        credited = self._credited(objective, rows.batch) if fixed else None
        return Microbatch(rows, credited, first=sampled[: self._rollouts_per_prompt])

    def _with_passes(self, rows: Rows) -> Rows:
        """The rows with what forward passes of their own tell, where the objective needs it."""
        told: dict[str, Tensor] = {}
        policy = self.accelerator.unwrap_model(self.model)
        if self.reference is not None:
            chunks = self._chunks(rows, torch.arange(len(rows.batch.mask)))
            assert self.layout is not None
            with self.accelerator.autocast():  # as the policy is scored, or rounding alone would be a divergence
                told[REFERENCE] = self.reference.logp(policy, rows, chunks, self.layout, self._scoring_temperature)
        if {LOCALITY, INFLUENCE} & self.objective.needs:
            told |= token_roles(policy, rows)
        return replace(rows, batch=replace(rows.batch, extra={**rows.batch.extra, **told}))

    def _sampled(self, inputs: list[dict[str, Any]], number: int) -> list[Sampled]:
        """One rollout and its reward for each input row; rows of one prompt are neighbours and share a group."""
        start = time.perf_counter()
        self.rollouts = self._rollouts([row[PROMPT_IDS] for row in inputs], number)
        said = [self._said(rollout) for rollout in self.rollouts]
        rewards = self._rewarded(inputs, self.rollouts, said)
        fields = self._fields(inputs, self.rollouts, said) if self.makers else [{}] * len(inputs)
        groups = len(inputs) // self._rollouts_per_prompt
        first = (number * self.accelerator.num_processes + self.accelerator.process_index) * groups
        self._seconds["sample"] += time.perf_counter() - start
        return [
            Sampled(
                rollout=rollout,
                prompt=tuple(row[PROMPT_IDS]),
                group=first + index // self._rollouts_per_prompt,
                gold=tuple(row[ANSWER_IDS]),
                reward=reward,
                fields=made,
            )
            for index, (row, rollout, reward, made) in enumerate(
                zip(inputs, self.rollouts, rewards, fields, strict=True)
            )
        ]

    def _with_spread(self, sampled: Sequence[Sampled], number: int) -> list[Sampled]:
        """The groups, those of equal rewards replaced by groups of further prompts that have some spread.

        The further prompts are drawn from the whole data set, a function of seed, generation, round and process. A
        group for which none is found in `dynamic_sampling` rounds stays (arXiv 2503.14476, section 3.2, samples on).
        """
        m = self._rollouts_per_prompt
        groups = whole_groups(sampled, m)
        flat = [place for place, group in enumerate(groups) if all_equal(group)]
        found = 0
        for attempt in range(1, self.args.dynamic_sampling + 1):
            wanted = max(gather_object([len(flat)]))  # rewards are gathered: every process samples alike
            if wanted == 0:
                break
            seed = mix(self.args.seed, number, attempt, self.accelerator.process_index)
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randint(len(self.train_dataset), (wanted,), generator=generator).tolist()
            inputs = [dict(self.train_dataset[index]) for index in drawn for _ in range(m)]
            fresh = self._sampled(inputs, _FURTHER + mix(number, attempt) % _FURTHER)
            varied = [group for group in whole_groups(fresh, m) if not all_equal(group)]
            for place, group in zip(flat, varied, strict=False):
                groups[place] = [replace(one, group=groups[place][0].group) for one in group]
            found += min(len(flat), len(varied))
            flat = flat[len(varied) :]
        self._metrics["train"]["groups/replaced"].append(found / len(groups))
        return [one for group in groups for one in group]

    def _said(self, rollout: Rollout) -> dict[str, str]:
        """The sampled answer and the rationale as text, as reward functions and makers of fields receive them."""
        thought = self._tokenizer.decode(rollout.ids[: rollout.close_start], skip_special_tokens=True)
        return {"response": self.format.response_text(rollout.answer_ids), "rationale": str(thought)}

    def _fields(
        self, inputs: Sequence[Mapping[str, Any]], rollouts: Sequence[Rollout], said: Sequence[Mapping[str, str]]
    ) -> list[dict[str, Values]]:
        """What the makers make of the rollouts, for each of them."""
        seen = [
            Seen(
                ids=rollout.ids,
                thought=rollout.close_start,
                rationale=texts["rationale"],
                response=texts["response"],
                group=index // self._rollouts_per_prompt,
                example=_shown(row),
            )
            for index, (row, rollout, texts) in enumerate(zip(inputs, rollouts, said, strict=True))
        ]
        made = {name: maker(seen, self._tokenizer) for name, maker in self.makers.items()}
        return [{name: values[index] for name, values in made.items()} for index in range(len(seen))]

    @property
    def _rollouts_per_prompt(self) -> int:
        return int(self.num_generations if self.model.training else self.num_generations_eval)

    def _rollouts(self, prompts: list[list[int]], number: int) -> list[Rollout]:
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as unwrapped,
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            self.accelerator.autocast(),
        ):
            return sample(
                unwrapped,
                prompts,
                self.format,
                self.args.budget,
                draw=self.args.draw,
                stop_tokens=self.eos_token_ids,
                pad=self._tokenizer.pad_token_id,
                seed=mix(self.args.seed, number, self.accelerator.process_index),
            )

    def _rewarded(
        self, inputs: list[dict[str, Any]], rollouts: Sequence[Rollout], said: Sequence[Mapping[str, str]]
    ) -> list[float]:
        """The weighted reward of each rollout, NaN where no function scored it; TRL's metrics and tables are filled."""
        prompts = [row["prompt"] for row in inputs]
        texts = self._tokenizer.batch_decode([r.ids for r in rollouts], skip_special_tokens=True)
        chat = is_conversational({"prompt": prompts[0]})
        completions = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
        columns = [{**_shown(row), **texts} for row, texts in zip(inputs, said, strict=True)]
        per_function = self._calculate_rewards(columns, prompts, completions, [list(r.ids) for r in rollouts])
        total = (per_function * self.reward_weights.to(per_function.device)).nansum(1)
        total[per_function.isnan().all(1)] = torch.nan
        self._log_generation(inputs, rollouts, prompts, completions, per_function, total)
        first = self.accelerator.process_index * len(inputs)
        return [float(value) for value in total[first : first + len(inputs)]]

    # --- the loss

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One micro-batch: sample if it is time, score, forward and backward; stopped by a loss that is not finite."""
        self._seconds = {"sample": 0.0, "score": 0.0}
        start = time.perf_counter()
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        elapsed = time.perf_counter() - start
        for part, seconds in self._seconds.items():
            self._metrics["train"][f"time/{part}"].append(seconds)
        self._metrics["train"]["time/update"].append(elapsed - sum(self._seconds.values()))
        self._stop_unless_finite(loss, "loss")
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and self.accelerator.scaler is None:  # fp16's scaler skips steps that overflow
            self._stop_unless_finite(torch.as_tensor(norm), "gradient norm")
        return norm

    def _stop_unless_finite(self, value: Tensor, name: str) -> None:
        """Stop before a bad step reaches the weights; every process stops together."""
        bad = (~torch.isfinite(value.detach())).float().to(self.accelerator.device).reshape(())
        if float(self.accelerator.reduce(bad, "sum")) > 0:
            raise QreditError(
                f"the {name} is not finite ({float(value.detach())}) in step {self.state.global_step + 1}; the weights "
                "were left as they were; checkpoints saved before are good"
            )

    def _objective_now(self) -> Objective:
        """The plain objective of this moment of training."""
        objective = self.objective if self.guide is None else self.guide.now()
        objective = (self.guard and self.guard.objective()) or objective
        return objective.at(self.state.global_step / max(self.state.max_steps, 1))

    # --- guidance

    def look_first(self) -> None:
        """Let the guide begin from what some prompts show of their likelihood; nothing is learned from them."""
        assert self.guide is not None
        self.model.train()
        world, rank, m = self.accelerator.num_processes, self.accelerator.process_index, self.num_generations
        count = max(min(LOOKED, len(self.train_dataset)) // world, 1) * world  # as many for each process
        own = [place * len(self.train_dataset) // count for place in range(count)][rank::world]
        size = max(self.args.per_device_train_batch_size // m, 1)
        found = [self._likelihood_of(own[start : start + size], number=start) for start in range(0, len(own), size)]
        decision = self.guide.begin(_joined(gather_object(found)), m)
        _log.info(f"{decision.estimator}(q={decision.q:g}): {decision.reason}")

    def _likelihood_of(self, places: Sequence[int], number: int) -> dict[str, Tensor]:
        """The likelihood facts of some prompts of the data set."""
        m = self.num_generations
        inputs = [dict(self.train_dataset[place]) for place in places for _ in range(m)]
        rollouts = self._rollouts([row[PROMPT_IDS] for row in inputs], _BEFORE + number)
        sampled = [
            Sampled(rollout, tuple(row[PROMPT_IDS]), index // m, tuple(row[ANSWER_IDS]), reward=torch.nan)
            for index, (row, rollout) in enumerate(zip(inputs, rollouts, strict=True))
        ]
        rows = collate(sampled, self.tails, self._tokenizer.pad_token_id, self.args.seed, self.accelerator.device)
        rows = replace(rows, vocabulary=self._vocabulary(sampled))
        batch = self._scored_without_gradient(self.model_wrapped, rows)
        return _on_cpu(likelihood_facts(self._objective_now(), batch))

    def _compute_loss(self, model: nn.Module, inputs: Microbatch) -> Tensor:
        objective = self._objective_now()
        if not self.model.training:
            return self._evaluation_loss(model, objective, inputs.rows)
        if objective.scope == Scope.BATCH:
            credited, counts = self._whole_step_credit(model, objective)
        else:
            credited, counts = inputs.credited, self._counts()
        if self.args.verify_prefix and not self._verified and self.layout is pack:
            found = verify(self.accelerator.unwrap_model(model), inputs.rows, bool(self.args.bf16 or self.args.fp16))
            _log.warning(f"shared prefix verified: gradients within {found:.1g} of the ordinary ones")
            self._verified = True
        batch, loss = self._loss(model, objective, inputs.rows, credited, counts)
        if self.recorder is not None:
            learned = Learned(objective, inputs.rows, batch, credited, self.objective_state, inputs.first)
            self.recorder.see(self.state.global_step + 1, learned)
        self._update_state(objective, batch)
        self._log_batch("train", objective, batch)
        return loss

    def _evaluation_loss(self, model: nn.Module, objective: Objective, rows: Rows) -> Tensor:
        """The loss of an evaluation batch as if it were a whole step."""
        batch = self._scored_without_gradient(model, rows)
        credited = objective.evaluate(batch, self.objective_state)
        self._log_batch("eval", objective, batch)
        logp = batch.require("logp", str(objective))
        return sum_terms(objective.numerators(logp, batch, credited), objective.denominators(batch, credited))

    def _credited(self, objective: Objective, batch: RolloutBatch) -> Credited:
        """The objective on these rows, whose denominators are known already.

        Raises:
            QreditError: a stage changes the denominator, which only a stage with statistics over the whole step may.
        """
        credited = objective.evaluate(batch, self.objective_state)
        if credited.weight is not None:
            raise QreditError(f"a stage of {objective} returns a weight; its scope must be BATCH")
        return credited

    def _loss(
        self, model: nn.Module, objective: Objective, rows: Rows, credited: Credited | None, counts: Mapping[str, float]
    ) -> tuple[RolloutBatch, Tensor]:
        """The loss of a micro-batch, and its batch with what the forward passes told.

        Rows that carry no coefficient are scored without gradient and left out of the differentiated passes. Where the
        others fit one forward, coefficients come from that same forward unless they are known before.
        """
        whole = torch.arange(len(rows.batch.mask))
        if credited is None and len(self._chunks(rows, whole)) == 1:
            if not objective.draws:
                told = self._score(model, rows)
                batch = self._scored(rows.batch, told)
                credited = self._credited(objective, batch)
                return batch, sum_terms(objective.numerators(told["logp"], batch, credited), counts)
            if self._prompts_can_be_kept():
                return self._loss_of_chosen_rows(model, objective, rows, counts)
        scores: Scores = {}
        if credited is None:
            self._score_without_gradient(model, rows, whole, scores, only=self._enough(objective, rows.batch))
            credited = self._credited(objective, self._scored(rows.batch, scores))
        else:
            self._score_without_gradient(model, rows, (~credited.learning).nonzero()[:, 0], scores)
        loss = self._loss_of_live_rows(model, objective, rows, credited, counts, scores)
        return self._scored(rows.batch, scores), loss

    def _loss_of_live_rows(
        self,
        model: nn.Module,
        objective: Objective,
        rows: Rows,
        credited: Credited,
        counts: Mapping[str, float],
        scores: Scores,
    ) -> Tensor:
        """Forward and backward over the rows that carry a coefficient, chunk by chunk; fills in their `scores`.

        The last chunk's loss is left for the caller to differentiate; what the others contribute is added to it as a
        constant, so that the logged loss is the whole one. Where no row carries any, one of them takes part all the
        same: gradients are averaged over processes.
        """
        chunks = self._chunks(rows, _live(credited))
        done = torch.zeros((), device=self.accelerator.device)
        for number, chunk in enumerate(chunks):
            part = rows.select(chunk)
            told = self._score(model, part)
            _fill(scores, rows, chunk, told)
            own = self._scored(part.batch, told)
            loss = sum_terms(objective.numerators(told["logp"], own, credited.select(chunk)), counts)
            if number == len(chunks) - 1:
                return done + loss
            if self.model.training:
                with self.accelerator.no_sync(model):
                    self.accelerator.backward(loss)
            done = done + loss.detach()
        raise AssertionError("there is always a last chunk")

    def _loss_of_chosen_rows(
        self, model: nn.Module, objective: Objective, rows: Rows, counts: Mapping[str, float]
    ) -> tuple[RolloutBatch, Tensor]:
        """`_loss` where all rows are scored before those that carry a coefficient are known: prompts computed once."""
        start = time.perf_counter()
        only = self._enough(objective, rows.batch)
        prompts = prompts_of(rows)
        layout = going_on(prompts, rows)
        scores: Scores = {}
        chosen: list[tuple[Tensor, Credited]] = []

        def choose(told: Scores) -> Continuing:
            _fill(scores, rows, torch.arange(len(rows.batch.mask)), _unscored_is_nan(told, only))
            self._seconds["score"] += time.perf_counter() - start
            credited = self._credited(objective, self._scored(rows.batch, scores))
            live = _live(credited)
            chosen.append((live, credited.select(live)))
            return going_on(prompts, rows.select(live))

        wanted = Wanted.of(self.objective.needs, rows.vocabulary)
        layout = layout if only is None else layout.only(only)
        told = score_chosen(model, layout, choose, self._scoring_temperature, wanted)
        live, credited = chosen[0]
        _fill(scores, rows, live, told)
        own = self._scored(rows.select(live).batch, told)
        loss = sum_terms(objective.numerators(told["logp"], own, credited), counts)
        return self._scored(rows.batch, scores), loss

    def _prompts_can_be_kept(self) -> bool:
        """Whether the keys of prompts may be kept on the graph for two passes over completions.

        Not where layers run again in the backward pass, nor where their weights come and go.
        """
        if self._keeps_prompts is None:
            resident = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
            again = inside(self.accelerator.unwrap_model(self.model)).is_gradient_checkpointing
            self._keeps_prompts = self.layout is pack and self.accelerator.distributed_type in resident and not again
        return self._keeps_prompts

    def _enough(self, objective: Objective, batch: RolloutBatch) -> Tensor | None:
        """The tokens whose scores the coefficients depend on, where that is the gold answer's alone; None is all."""
        return None if kinds(objective.needs) & (TOLD - {"answer_logp"}) else batch.answer

    def _score(self, model: nn.Module, rows: Rows, only: Tensor | None = None) -> Scores:
        """log-probability and entropy of each completion token, and what the objective needs beside them.

        Through the wrapped model; differentiable.

        Args:
            only: (B, T) tokens that suffice; the entropy of others is NaN.
        """
        batch = rows.batch
        if self.layout is not None:
            wanted = Wanted.of(self.objective.needs, rows.vocabulary)
            layout = self.layout(rows)
            if only is None:
                return score(model, layout, self._scoring_temperature, wanted)
            return _unscored_is_nan(score(model, layout.only(only), self._scoring_temperature, wanted), only)
        assert batch.ids is not None
        logp, entropy, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([rows.prompt_ids, batch.ids], 1),
            torch.cat([rows.prompt_mask, batch.mask.long()], 1),
            batch.mask.shape[1],
            compute_entropy=True,
        )
        device = batch.mask.device  # a model that TRL spread over several devices answers on its last one
        return {"logp": logp.to(device), "entropy": entropy.to(device)}

    @property
    def _scoring_temperature(self) -> float:
        return 1.0 if "answer_logp" in self.objective.needs else float(self.temperature)

    def _scored(self, batch: RolloutBatch, scores: Scores) -> RolloutBatch:
        """The batch with what a forward pass tells: log-probabilities, the gold answer's likelihood, entropies."""
        logp = scores["logp"].detach()
        off_policy = self.model.training and self._generation is not None
        off_policy = off_policy and self._generation.made_at != self.state.global_step  # type: ignore[union-attr]
        return replace(
            batch,
            logp=logp,
            entropy=scores["entropy"],
            answer_logp=torch.where(batch.answer, logp.double(), 0.0).sum(1) if "answer" in self.tails else None,
            sampler_logp=batch.sampler_logp if off_policy else None,
            extra={**batch.extra, **{name: told for name, told in scores.items() if name not in ("logp", "entropy")}},
        )

    def _scored_without_gradient(self, model: nn.Module, rows: Rows) -> RolloutBatch:
        scores: Scores = {}
        self._score_without_gradient(model, rows, torch.arange(len(rows.batch.mask)), scores)
        return self._scored(rows.batch, scores)

    def _score_without_gradient(
        self, model: nn.Module, rows: Rows, which: Tensor, scores: Scores, only: Tensor | None = None
    ) -> None:
        """Fill in the scores of some rows, of some of their tokens."""
        start = time.perf_counter()
        with torch.no_grad():
            for chunk in self._chunks(rows, which) if len(which) else ():
                few = None if only is None else only[chunk]
                _fill(scores, rows, chunk, self._score(model, rows.select(chunk), few))
        self._seconds["score"] += time.perf_counter() - start

    def _chunks(self, rows: Rows, which: Tensor) -> list[Tensor]:
        """Row numbers cut to what fits a forward pass."""
        fits = self.args.rows_per_forward or self._rows_that_fit(rows)
        return list(which.split(min(fits, max(len(which), 1))))

    def _rows_that_fit(self, rows: Rows) -> int:
        """As many as the memory holds, by what two rows of the first micro-batch were seen to need."""
        whole = len(rows.batch.mask)
        if not self.model.training and self._tokens_that_fit is None:
            return whole
        prompt, completion = rows.prompt_ids.shape[1], rows.batch.mask.shape[1]
        shared = whole if self.layout is pack else 1
        if self._tokens_that_fit is None:
            few, device = rows.select(torch.arange(min(2, whole))), self.accelerator.device
            tokens = (prompt if shared > 1 else 2 * prompt) + 2 * completion
            model = self.accelerator.unwrap_model(self.model)
            held = bytes_per_token(lambda: self._score(model, few)["logp"], tokens, device, model)
            free = free_bytes(device) - yet_to_come(model, self.optimizer)
            self._tokens_that_fit = max(int(free / held), 1)
        group = min(self._rollouts_per_prompt * len(self.tails), shared)
        return rows_that_fit(self._tokens_that_fit, prompt, completion, group)

    # --- what a whole optimiser step shares

    def _counts(self) -> Mapping[str, float]:
        """The denominators of the current optimiser step, which may span several generations of equal size."""
        assert self._generation is not None
        generations = max(self.current_gradient_accumulation_steps / self._period, 1.0)
        return {name: generations * n for name, n in self._generation.denominators[self._step % self._period].items()}

    def _whole_step_credit(self, model: nn.Module, objective: Objective) -> tuple[Credited | None, Mapping[str, float]]:
        """Coefficients and denominators where a stage's statistics run over the whole optimiser step.

        At the step's first micro-batch all of them are scored without gradient, gathered from every process, evaluated
        together and cut apart again: the result does not depend on how the step is cut up.
        """
        assert self._generation is not None
        window = self.args.gradient_accumulation_steps
        position = self._step % self.args.steps_per_generation
        first = position - position % window
        micro = self._generation.microbatches[first : first + window]
        if position == first or not self._step_credit:
            local = [self._scored_without_gradient(model, m.rows) for m in micro]
            self._step_credit, statistics = evaluated_together(objective, local, self.objective_state, self.accelerator)
            self._pending_statistics = statistics if self.accelerator.is_main_process else {}
        credited = self._step_credit[position - first]
        if credited.weight is None and not objective.counts_coefficients:
            return credited, self._counts()
        counts = [objective.denominators(m.rows.batch, c) for m, c in zip(micro, self._step_credit, strict=True)]
        return credited, shared_denominators(counts, window, 1, self.accelerator)[0]

    def _update_state(self, objective: Objective, batch: RolloutBatch) -> None:
        """Collect what stateful stages need; move their state once the optimiser step is complete."""
        if not self.objective_state:
            return
        if objective.scope != Scope.BATCH:
            add_into(self._pending_statistics, objective.statistics(batch, self.objective_state))
        if self.accelerator.sync_gradients:
            everywhere: dict[str, State] = {}
            for part in gather_object([self._pending_statistics]):
                add_into(everywhere, part)
            self.objective_state = objective.update_state(self.objective_state, everywhere)
            self._pending_statistics = {}

    # --- logs

    def _log_generation(
        self,
        inputs: Sequence[Mapping[str, Any]],
        rollouts: Sequence[Rollout],
        prompts: Sequence[Any],
        completions: Sequence[Any],
        per_function: Tensor,
        total: Tensor,
    ) -> None:
        mode, m = "train" if self.model.training else "eval", self._rollouts_per_prompt
        facts = self.accelerator.gather(length_facts(rollouts).to(self.accelerator.device)).cpu()
        found = {**reward_metrics(self.reward_func_names, per_function, total, m), **length_metrics(facts)}
        for name, value in found.items():
            self._metrics[mode][name].append(value)
        if mode == "train":
            read = torch.tensor(float(sum(len(row[PROMPT_IDS]) for row in inputs)), device=self.accelerator.device)
            self.state.num_input_tokens_seen += int(self.accelerator.reduce(read, "sum") + facts[:, 0].sum())
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]
        self._logs["prompt"].extend(gather_object(list(prompts)))
        self._logs["completion"].extend(gather_object(list(completions)))
        for name, column in zip(self.reward_func_names, per_function.T, strict=True):
            self._logs["rewards"][name].extend(column.tolist())
        groups = total.view(-1, m)
        self._logs["advantages"].extend((groups - groups.nanmean(1, keepdim=True)).flatten().tolist())
        self._log_what_rewards_logged(mode, len(prompts))

    def _log_what_rewards_logged(self, mode: str, rows: int) -> None:
        """Columns and numbers that reward functions logged through TRL's log_extra and log_metric."""
        for column in sorted(set(gather_object(list(self._pending_extra_logs)))):
            self._logs["extra"][column].extend(gather_object(self._pending_extra_logs.get(column, [None] * rows)))
        self._pending_extra_logs.clear()
        for name in sorted(set(gather_object(list(self._pending_metrics)))):
            values = [v for part in gather_object([self._pending_metrics.get(name, [])]) for v in part]
            self._metrics[mode][name].append(sum(values) / len(values))
        self._pending_metrics.clear()

    def _log_batch(self, mode: str, objective: Objective, batch: RolloutBatch) -> None:
        """Collect the facts of this micro-batch; at the step's last one, log what they say, over all processes.

        The entropy is that of the tokens that were scored: PAFT scores the rationales that it draws.
        """
        entropy = batch.require("entropy", "the log").detach()
        scored = batch.sampled & ~entropy.isnan()
        facts = {
            **likelihood_facts(objective, batch),
            "no_success": no_success(batch),
            "success": success(batch),
            "entropy": torch.stack([entropy[scored].sum().double(), scored.sum().double()])[None],
        }
        self._facts.append(_on_cpu(facts))
        if mode == "train" and not self.accelerator.sync_gradients:
            return
        whole = _joined(gather_object(self._facts))
        self._facts = []
        q = commitment(objective)
        found = {
            "groups/no_success": mean_or_nan(whole["no_success"]),
            "entropy": float(whole["entropy"][:, 0].sum() / whole["entropy"][:, 1].sum().clamp(min=1)),
            **({} if q is None or "p_hat" not in whole else likelihood_metrics(q, whole)),
        }
        if mode == "train":
            self._guided_by(whole, found)
        for name, value in found.items():
            self._metrics[mode][name].append(value)

    def _guided_by(self, facts: Mapping[str, Tensor], found: dict[str, float]) -> None:
        """Tell guide and guard what this step's groups showed; `found` is what will be logged of it."""
        likely = facts.get("p_hat")
        self.step_success = (10**likely if likely is not None else facts["success"]).tolist()
        if self.guide is None:
            return
        found["guide/paft"] = float(self.guide.estimator == "paft")
        decision = None if likely is None else self.guide.see(self.state.global_step + 1, facts)
        if decision is not None:
            _log.info(f"{decision.estimator}(q={decision.q:g}) from step {decision.step + 1}: {decision.reason}")

    # --- checkpoints

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` takes the newest whole checkpoint of the output folder.

        Raises:
            QreditError: no whole checkpoint to resume from, or the one named is torn.
        """
        if resume_from_checkpoint:
            found = self._checkpoint_to_resume(resume_from_checkpoint)
            self._restore(found)
            resume_from_checkpoint = str(found)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _checkpoint_to_resume(self, wanted: str | bool) -> Path:
        if isinstance(wanted, str):
            reason = checkpoint.fault(Path(wanted))
            if reason is not None:
                raise QreditError(f"checkpoint {wanted} cannot be resumed: {reason}")
            return Path(wanted)
        found, torn = checkpoint.newest_whole(Path(self.args.output_dir))
        for name, reason in torn.items():
            _log.warning(f"skipping {name}: {reason}")
        if found is None:
            raise QreditError(f"no whole checkpoint in {self.args.output_dir} to resume from")
        return found

    def _restore(self, folder: Path) -> None:
        state = resume.load_state(folder)
        if state is None:
            raise QreditError(f"{folder} was not written by this trainer; give its weights as the model instead")
        if state["objective"] != str(self.objective):
            raise QreditError(f"{folder} was trained with {state['objective']}, not with {self.objective}")
        self._step = state["step"]
        self._evaluated = tuple(state["evaluated"])
        self.objective_state, self._pending_statistics = state["objective_state"], state["pending_statistics"]
        for name, values in state["metrics"].items():
            self._metrics["train"][name] = values
        for guidance in (self.guide, self.guard):
            if guidance is not None and type(guidance).__name__ in state:
                guidance.restore(state[type(guidance).__name__])
        path = folder / resume.rollouts_file(self.accelerator.process_index)
        self._generation = resume.load_generation(path, self.accelerator.device)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """TRL's checkpoint, and what is needed to go on as if never stopped, written aside and renamed when whole."""
        run = Path(super()._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        self._writing_to = run / checkpoint.WRITING
        written = self._writing_to / name
        if self.is_world_process_zero():
            shutil.rmtree(self._writing_to, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        pushed, self.args.push_to_hub = self.args.push_to_hub, False
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writing_to, self.args.push_to_hub = None, pushed
        self._save_state(written, run)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            checkpoint.publish(written, run / name)
            rotate_checkpoints(str(run), self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run / name))

    def _save_state(self, written: Path, run: Path) -> None:
        """Our part of a checkpoint; and the best checkpoint under the name it will have."""
        if self._step % self._period and self._generation is not None:
            resume.save_generation(written / resume.rollouts_file(self.accelerator.process_index), self._generation)
        if self.is_world_process_zero():
            best = self.state.best_global_step
            if best and ((run / f"checkpoint-{best}").exists() or best == self.state.global_step):
                self.state.best_model_checkpoint = str(run / f"checkpoint-{best}")
                self.state.save_to_json(str(written / "trainer_state.json"))
            state = {
                "step": self._step,
                "evaluated": self._evaluated,
                "objective": str(self.objective),
                "expansion": self.objective.expansion,
                "objective_state": self.objective_state,
                "pending_statistics": self._pending_statistics,
                "metrics": dict(self._metrics["train"]),
                **{type(one).__name__: one.state() for one in (self.guide, self.guard) if one is not None},
            }
            resume.save_state(written, state)

    def _get_output_dir(self, trial: Any) -> str:
        return str(super()._get_output_dir(trial) if self._writing_to is None else self._writing_to)


class _FollowEpoch(TrainerCallback):  # type: ignore[misc]
    """Tells the order of prompts which epoch begins, also in a run that was resumed inside one."""

    def __init__(self, trainer: QreditTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.order.set_epoch(int((state.epoch or 0.0) + 1e-6))


class _LookFirst(TrainerCallback):  # type: ignore[misc]
    """Before the first step of a run that leaves q to its guide, lets it look; a resumed run has looked already."""

    def __init__(self, trainer: QreditTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.guide is not None and not self.trainer.guide.begun:
            self.trainer.look_first()


def _on_cpu(facts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.double().cpu() for name, values in facts.items()}


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The facts of several batches, name by name."""
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in parts[0]}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's row without the ids that were added to it."""
    return {key: value for key, value in row.items() if key not in (PROMPT_IDS, ANSWER_IDS)}


def _fill(scores: Scores, rows: Rows, which: Tensor, told: Scores) -> None:
    """Put what was told of some rows in its place among all of them."""
    for name, value in told.items():
        if name not in scores:
            scores[name] = value.new_zeros(len(rows.batch.mask), *value.shape[1:])
        scores[name][which] = value.detach()


def _live(credited: Credited) -> Tensor:
    """The rows that carry a coefficient; the first where none does."""
    live = credited.learning.nonzero()[:, 0]
    return live if len(live) else torch.tensor([0])


def _unscored_is_nan(told: Scores, only: Tensor | None) -> Scores:
    """The entropy of tokens that were left out is not known."""
    return told if only is None else told | {"entropy": torch.where(only, told["entropy"], torch.nan)}


def _evaluations(evaluation: Any) -> dict[str, Any]:
    """Each evaluation data set under the name that errors give it."""
    if evaluation is None:
        return {}
    if isinstance(evaluation, dict):
        return {f"eval_dataset '{name}'": dataset for name, dataset in evaluation.items()}
    return {"eval_dataset": evaluation}
