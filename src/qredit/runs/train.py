"""A training run: from options to a run folder with a final model."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback

from qredit import tasks
from qredit.callbacks.collapse_guard import CollapseGuard
from qredit.callbacks.credit_recorder import CreditRecorder
from qredit.callbacks.decisions import DecisionWriter
from qredit.callbacks.metrics_file import MetricsWriter
from qredit.callbacks.rollout_writer import RolloutWriter
from qredit.callbacks.sample_writer import SampleWriter
from qredit.callbacks.validation import ValidationCallback
from qredit.data.encoding import ALIAS_IDS
from qredit.engine.model_limits import get_context_length
from qredit.rewards.reward_spec import Reward, choose_eval_rewards, parse_rewards
from qredit.rollouts.answer_end import describe_end_conflict, get_eos_token_ids
from qredit.rollouts.format import Format, TokenFormat, is_chat
from qredit.runs import plan as planning
from qredit.runs.curriculum import prepare_curriculum
from qredit.runs.drawn_texts import check_drawn_fit, check_drawn_texts, read_drawn_columns
from qredit.runs.episodes import load_source
from qredit.runs.example_filter import ExampleFilter, filter_examples
from qredit.runs.fields import check_fields, describe_replaced
from qredit.runs.folder import RunFolder
from qredit.runs.lifecycle import TrainResult, run_to_the_end
from qredit.runs.load import (
    apply_chat_format,
    check_objective_of_task,
    check_trainable,
    explain_gold_need,
    find_weights,
    is_adapter,
    load_data,
    load_examples,
    load_held_out,
    load_model,
    load_tokenizer,
    make_dataset,
    prepare_examples,
)
from qredit.runs.loggers import parse_report_to
from qredit.runs.options import EPISODE_OPTIONS, TrainOptions
from qredit.runs.quantization import check_four_bit, make_quantization_config
from qredit.runs.samplers import parse_vllm
from qredit.runs.shrink_and_perturb import shrink_and_perturb
from qredit.runs.warmup import WarmupTrainer, choose_warmup_steps, make_lr_schedule
from qredit.tasks.alias_use import keep_rewarded
from qredit.tasks.base import Example
from qredit.tasks.overlap import count_overlap
from qredit.trl import QreditConfig, QreditTrainer
from qredit.trl.checks import check_drawing, check_hints, check_replay, check_sampling
from qredit.trl.environment_variables import collect_variables, get_compute_dtype
from qredit.trl.lora import make_lora
from qredit.trl.memory_estimate import count_parameters, count_weight_bytes, estimate_memory, get_resident_bytes
from qredit.trl.vllm_sampling import describe_sampler
from qredit.utils.errors import QreditError
from qredit.utils.extras import require_extras
from qredit.utils.sanitize import summarize_error


def train(options: TrainOptions, output: Path, console: Console, resume: bool = False) -> TrainResult:
    """Run the training; progress goes to `console`.

    Args:
        options: of the run.
        output: the run folder.
        console: where progress is shown.
        resume: go on from its newest whole checkpoint.

    Raises:
        QreditError: anything that cannot be used, before any compute; a run folder in use, or another run's.
    """
    return run_to_the_end(
        output, options, options.as_dict(), lambda folder: build_trainer(options, folder), console, resume
    )


def build_trainer(options: TrainOptions, folder: RunFolder) -> tuple[QreditTrainer, dict[str, Any]]:
    """The trainer of a run, and what is worth recording about its data."""
    given, objective = parse_rewards(options.rewards), options.make_objective()
    check_objective_of_task(options)
    made = check_fields(options)
    parse_vllm(options)
    source = load_source(options)
    path = resolve_trainable_model(options)
    schedule = make_lr_schedule(options.lr_schedule)
    args = make_config(options, folder.path)
    weights = [reward.weight for reward in given]
    args.reward_weights = None if set(weights) == {1.0} else weights
    check_drawing(objective, args, None, made.functions)  # with episodes options refuse it
    check_replay(objective, args)
    check_sampling(objective, args)
    check_hints(objective, args)
    data = load_data(options, "train", options.get_subset_size(), explain_gold_need(options))
    examples: Sequence[Example] = data.examples
    filtered: dict[str, int] = {}
    if options.keep is not None and options.probe is not None:
        found = filter_examples(examples, ExampleFilter(options.keep), Path(options.probe), options.prompts_per_step)
        filtered = {"kept": len(found.examples), "left_out_by_keep": found.left_out, "unprobed": found.unprobed}
        examples = found.examples
    for reward in given:
        reward.check(examples)
    made.check(examples)
    curriculum, examples = prepare_curriculum(options, examples)
    drawn = read_drawn_columns(options, examples)
    tokenizer = load_tokenizer(path)  # after what is on this machine: it may have to be fetched
    check_drawn_texts(drawn, examples, tokenizer)
    facts: dict[str, Any] = {
        "train_examples": len(examples),
        "overlap": asdict(count_overlap(examples, load_held_out(options))),
        "unparseable_golds": len(given[0].unparseable(keep_rewarded(examples, options.alias_use))),
        "data_notes": [*data.notes, *describe_replaced(options)],
        "model_path": path,
        **filtered,
    }
    samples = SampleWriter(folder.samples, options.log_every)
    recorder = CreditRecorder(folder.credit, options.log_every, tokenizer)
    watchers: list[Any] = [MetricsWriter(folder.metrics), samples, recorder]
    if options.keep_rollouts:
        watchers.append(RolloutWriter(folder.rollouts))
    decisions = DecisionWriter(folder.decisions)
    guard = None if options.guard is None else CollapseGuard(options.guard)
    notes: list[str] = []
    model = load_trainable_model(options, path, notes)
    if options.shrink is not None and options.perturb is not None:
        shrink_and_perturb(model, options.shrink, options.perturb, options.seed)
    judged = choose_eval_rewards(given, tasks.get(options.task).metrics, examples)
    validation = make_validation(options, judged, tokenizer, model, folder, guard)
    with reraise_as_qredit_error(ValueError, ImportError):
        trainer = WarmupTrainer(
            model,
            objective,
            args,
            make_dataset(
                examples,
                apply_chat_format(examples, tokenizer, options.chat),
                further=any(reward.reads_columns for reward in given)
                or curriculum is not None
                or made.reads_columns
                or bool(drawn)
                or (source is not None and source.reads_columns),
            ),
            reward_funcs=[reward.function for reward in given],
            processing_class=tokenizer,
            callbacks=[*watchers, *filter(None, (validation, guard, decisions))],  # validated before it is judged
            peft_config=make_lora_config(options),
            tools=None if source is None else [tool.function for tool in source.tools],
            environment=None if source is None else source.make,
            fields=made.functions,
            teachers=made.teachers,
            learners=made.learners,
            prompts=curriculum,
        )
    check_drawn_fit(drawn, trainer.train_dataset, tokenizer, get_context_length(model))
    trainer.use_optimizer(options.optimizer)
    trainer.lr_schedule = schedule
    trainer.remove_callback(PrinterCallback)
    samples.run, decisions.overrides = trainer, trainer.overrides
    if validation is not None:
        validation.run = trainer
    facts |= {
        "model_notes": notes,
        "computed_in": get_compute_dtype(trainer.accelerator),
        "sampled_with": describe_sampler(args, trainer.sampler),
        "environment": collect_variables(),
    }
    facts["train_prompts"] = len(trainer.train_dataset)
    aliases = trainer.train_dataset[ALIAS_IDS] if ALIAS_IDS in trainer.train_dataset.column_names else ()
    facts["with_aliases"] = sum(map(bool, aliases))
    facts["end"] = trainer.format.format.end
    facts["end_notice"] = describe_end_conflict(trainer.format, get_eos_token_ids(model), trainer.chat_template_kwargs)
    facts["answers_over_budget"] = sum(len(ids) > args.answer_budget for ids in trainer.train_dataset["answer_ids"][:])
    return trainer, facts


def resolve_trainable_model(options: TrainOptions) -> str:
    """Where the weights are that a run begins with.

    Raises:
        QreditError: as `resolve_model_path` and `check_four_bit`; a folder of adapters alone.
    """
    check_four_bit(options, options.lora)
    path = find_weights(options)
    if is_adapter(path):
        raise QreditError(f"model folder {path} holds LoRA adapters only; train from a run that was given --merge-lora")
    return path


def load_trainable_model(options: TrainOptions, path: str, notes: list[str]) -> PreTrainedModel:
    """The model that a run begins with. One with 4-bit weights is loaded onto the device that computes.

    Args:
        options: of the run.
        path: folder or model id.
        notes: is told what was mended.

    Raises:
        QreditError: as `load_model` and `check_trainable`.
    """
    quantization = make_quantization_config(options)
    model = load_model(path, None if quantization is None else options.device, notes, quantization)
    check_trainable(model, path, options.lora)
    return model


def make_config(options: TrainOptions, output: Path) -> QreditConfig:
    """The training arguments that the options stand for.

    Raises:
        QreditError: sizes that split a group or do not divide over the processes; whatever TRL refuses.
    """
    shared, each, at_once = list_shared_arguments(options, options.learning_rate, output)
    total, answer = options.budget
    chosen: dict[str, Any] = {
        **shared,
        "per_device_train_batch_size": options.m * at_once,
        "gradient_accumulation_steps": each // at_once,
        "num_generations": options.m,
        "rows_per_forward": options.rows_per_forward,
        "max_completion_length": total,
        "answer_budget": answer,
        "aliases": options.aliases,
        "thinking_opening": options.thinking_opening,
        "thinking_closing": options.thinking_closing,
        "answer_seam": options.answer_seam,
        "answer_end": options.answer_end,
        "skip_long": options.skip_long,
        "drawing": options.drawing,
        "replay": options.replay,
        **{name: value for name in EPISODE_OPTIONS if (value := getattr(options, name)) is not None},
        **(_list_episode_sizes(options) if options.env or options.tools else {}),
        **{name: value for name, value in options.training.items() if name != "report_to"},
    }
    with reraise_as_qredit_error(ValueError, TypeError):
        return QreditConfig(**chosen)


def _list_episode_sizes(options: TrainOptions) -> dict[str, int]:
    """Those of episodes that the command line has defaults of its own for."""
    return {"max_turns": options.episodes.turns, "observation_budget": options.episodes.observation}


def list_shared_arguments(options: TrainOptions, learning_rate: float, output: Path) -> tuple[dict[str, Any], int, int]:
    """The training arguments that do not depend on what is learned, by name; prompts of a process, and of a forward.

    Args:
        options: of the run.
        learning_rate: its largest value.
        output: the run folder.

    Raises:
        QreditError: sizes that do not divide over the processes; a precision or an optimiser that cannot be had.
    """
    world = PartialState().num_processes
    if options.prompts_per_step % world:
        raise QreditError(
            f"prompts_per_step={options.prompts_per_step} does not divide over {world} processes; groups stay whole, "
            f"so it must be a multiple of {world}"
        )
    each = options.prompts_per_step // world
    at_once = options.prompts_per_forward or each
    if each % at_once:
        fits = [n for n in range(1, each + 1) if each % n == 0]
        raise QreditError(f"prompts_per_forward={at_once} must divide the {each} prompts of a process: {fits}")
    check_precision(options)
    check_optimizer(str(options.training.get("optim", "")))
    saves = options.save_every or options.eval_every
    shared: dict[str, Any] = {
        "output_dir": str(output),
        "max_steps": options.steps,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": choose_warmup_steps(options.steps, options.warmup),
        "seed": options.seed,
        "logging_steps": options.log_every,
        "save_strategy": "steps" if saves else "no",
        "save_steps": saves or 500,
        "disable_tqdm": True,
        "save_total_limit": 3,
        "use_cpu": options.device.type == "cpu",
        "bf16": options.half and not options.training.get("fp16"),
        "report_to": parse_report_to(options.training.get("report_to")),
    }
    return shared, each, at_once


def check_precision(options: TrainOptions) -> None:
    """Refuse bf16 on a card that only imitates it, and two half precisions at once.

    Raises:
        QreditError: names what can be given instead.
    """
    if options.training.get("fp16"):
        if options.dtype == "bfloat16":
            raise QreditError("fp16 and dtype=bfloat16 are two precisions; give one of them")
        return
    if options.half and options.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise QreditError("this card has no bf16; give --fp16 true, or --dtype float32")


def check_optimizer(name: str) -> None:
    """Refuse an optimiser of bitsandbytes or GaLore where that is not installed.

    Args:
        name: as transformers calls it; empty is the default.

    Raises:
        MissingExtra: names it.
        QreditError: the same, of a package that is no extra.
    """
    if name.startswith("galore") and find_spec("galore_torch") is None:
        raise QreditError(
            f"optim={name} needs galore-torch, not installed here; install with: pip install galore-torch"
        )
    if any(part in name for part in ("8bit", "paged", "bnb")):
        require_extras(f"optim={name}", "quantization")


@contextlib.contextmanager
def reraise_as_qredit_error(*kinds: type[Exception]) -> Iterator[None]:
    """What TRL and transformers refuse of the settings, said in one line.

    Raises:
        QreditError: in place of an error of these kinds.
    """
    try:
        yield
    except QreditError:
        raise
    except kinds as error:
        raise QreditError(summarize_error(error)) from error


def make_plan(options: TrainOptions) -> planning.Plan:
    """What the run would do: nothing is written, nothing trained.

    Raises:
        QreditError: whatever would stop the run before compute.
    """
    from tempfile import TemporaryDirectory

    level = get_resident_bytes()
    with TemporaryDirectory() as nowhere:
        trainer, facts = build_trainer(options, RunFolder(Path(nowhere)))
    process = get_resident_bytes() - level if options.device.type == "cpu" else 0.0
    rows = trainer.train_dataset
    prompt_lengths = [len(ids) for ids in rows["prompt_ids"]]
    args: QreditConfig = trainer.args
    parameters = count_parameters(trainer.model)
    rollouts = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    groups = rollouts // args.num_generations
    return planning.Plan(
        prompts=planning.render_prompts(trainer.format, rows["prompt"], 3, trainer.chat_template_kwargs),
        prompt_ids=tuple(planning.decode_ids(trainer._tokenizer, ids) for ids in rows["prompt_ids"][:3]),
        end_notice=facts["end_notice"],
        seam=planning.describe_layout(
            trainer.format, trainer._tokenizer, rows["answer"][0] if "answer" in rows.column_names else None
        ),
        prompt_tokens=planning.summarize_lengths(prompt_lengths),
        answer_tokens=planning.summarize_lengths([len(ids) for ids in rows["answer_ids"] if ids]),
        examples=len(rows),
        left_out=facts["train_examples"] - len(rows),
        model_notes=tuple(facts["model_notes"]),
        unparseable_golds=facts["unparseable_golds"],
        answers_over_budget=facts["answers_over_budget"],
        with_aliases=facts["with_aliases"],
        data_notes=facts["data_notes"],
        overlap=facts["overlap"],
        filtered={name: facts[name] for name in ("kept", "left_out_by_keep", "unprobed") if name in facts},
        groups_per_step=groups,
        rollouts_per_group=args.num_generations,
        steps_per_epoch=len(rows) // groups,
        parameters=parameters,
        max_completion_length=int(args.max_completion_length),
        answer_budget=args.answer_budget,
        memory_gib=estimate_memory(trainer, max(process - count_weight_bytes(trainer.model), 0.0)).as_dict(),
    )


def make_token_format(
    options: TrainOptions, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example] = ()
) -> TokenFormat:
    """The layout of answers that the options ask for.

    Args:
        options: of the run.
        tokenizer: of the model.
        examples: what is asked: messages go through the chat template also where `chat` is off.
    """
    wrapped = bool(tokenizer.chat_template) if options.chat is None else options.chat
    strings = Format.of(
        tokenizer,
        options.thinking_opening,
        options.thinking_closing,
        options.answer_seam,
        options.answer_end,
        chat=wrapped or is_chat([example.prompt for example in examples], tokenizer),
        template=options.training.get("chat_template_kwargs"),
    )
    return TokenFormat(strings, tokenizer)


def make_validation(
    options: TrainOptions,
    rewards: Sequence[Reward],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    folder: RunFolder,
    guard: CollapseGuard | None,
) -> ValidationCallback | None:
    """What validates a run while it goes on; None where that was not asked for.

    Args:
        options: of the run.
        rewards: what scores an answer; the first one decides.
        tokenizer, model: of the run.
        folder: of the run.
        guard: is told of each validation.
    """
    if not options.eval_every:
        return None
    asked = load_examples(options, "validation", options.eval_questions, explain_gold_need(options))
    for reward in rewards:
        reward.check(asked)
    examples = prepare_examples(
        asked,
        make_token_format(options, tokenizer, asked),
        model,
        options,
        "validation",
    )
    return ValidationCallback(
        folder.validation, examples, rewards, options.eval_k, options.eval_every, options.seed, guard
    )


def make_lora_config(options: TrainOptions) -> LoraConfig | None:
    if not options.lora:
        return None
    return make_lora(options.lora_r)
