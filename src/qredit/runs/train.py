"""A training run: from options to a run folder with a final model."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback

from qredit import tasks
from qredit.callbacks.collapse_guard import CollapseGuard, has_guard_ended_run
from qredit.callbacks.credit_recorder import CreditRecorder
from qredit.callbacks.decisions import DecisionWriter
from qredit.callbacks.metrics_file import MetricsWriter
from qredit.callbacks.sample_writer import SampleWriter
from qredit.callbacks.validation import ValidationCallback, find_best_step
from qredit.engine.checkpoint import MANIFEST, find_newest_complete, replace_folder, step_of
from qredit.engine.run_state import STATE_FILE
from qredit.rewards.reward_spec import Reward, choose_eval_rewards, parse_rewards
from qredit.rollouts.answer_end import describe_end_conflict, get_eos_token_ids
from qredit.rollouts.format import Format, TokenFormat, is_chat
from qredit.runs import plan as planning
from qredit.runs.example_filter import ExampleFilter, filter_examples
from qredit.runs.folder import RunFolder
from qredit.runs.live import LiveView
from qredit.runs.load import (
    apply_chat_format,
    check_objective_of_task,
    check_trainable,
    is_adapter,
    load_data,
    load_examples,
    load_model,
    load_tokenizer,
    make_dataset,
    prepare_examples,
    resolve_model_path,
)
from qredit.runs.loggers import parse_report_to
from qredit.runs.options import TrainOptions
from qredit.runs.stop_signals import StopOnSignal
from qredit.runs.warmup import WarmupTrainer, choose_warmup_steps
from qredit.tasks.base import Example
from qredit.trl import QreditConfig, QreditTrainer
from qredit.trl.environment_variables import collect_variables, get_compute_dtype
from qredit.trl.memory_estimate import count_weight_bytes, estimate_memory, get_resident_bytes
from qredit.trl.model_card import render_card
from qredit.utils.atomic_files import report_write_errors
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars, summarize_error

_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        said: the notices that were told before the first step.
    """

    folder: Path
    final: Path
    steps: int
    best_step: int | None
    facts: Mapping[str, Any]
    said: tuple[str, ...]


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
    folder = RunFolder(output)
    made = _prepare_folder(folder, options, resume)
    start = _find_checkpoint(folder, options, console) if resume else None
    try:
        trainer, facts = build_trainer(options, folder)
    except BaseException:
        _remove_empty_folders(made)
        raise
    said = tuple(planning.list_data_notices(facts))
    if trainer.is_world_process_zero():
        folder.write_config(options)
        folder.write_record(options, facts)
        for notice in said:
            console.print(escape_control_chars(notice), markup=False)
    done = 0 if start is None else step_of(start)
    if done < options.steps and not (start is not None and has_guard_ended_run(start)):
        _take_steps(trainer, start, console)
        start, done = None, trainer.state.global_step
        facts["unended"] = _last(trainer, "completions/clipped_ratio")
    best = _write_final(trainer, options, folder, start)
    return TrainResult(output, folder.final, done, best, facts, said)


def _take_steps(trainer: QreditTrainer, start: Path | None, console: Console) -> None:
    """Train in view of the console, from a checkpoint if there is one."""
    main = trainer.is_world_process_zero()
    shown = LiveView(console, str(trainer.objective)) if main else None
    stop = StopOnSignal(lambda text: console.print(text) if main else None, trainer.accelerator)
    trainer.add_callback(stop)
    with stop.handle_signals(), shown if shown is not None else contextlib.nullcontext():
        if shown is not None:
            trainer.add_callback(shown)
            for keeper in trainer.callback_handler.callbacks:
                if isinstance(keeper, DecisionWriter):
                    keeper.notify = shown.note
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        stop.end()


def describe_saved_steps(folder: RunFolder, wanted: int) -> str:
    """What an interrupted run leaves, in words: the step to go on from, and the steps that are lost."""
    reached = max((int(entry["step"]) for entry in _entries(folder.metrics) if "step" in entry), default=0)
    saved = find_newest_complete(folder.path)[0]
    if saved is None:
        return f"nothing saved yet ({reached} of {wanted} steps lost)"
    lost = max(reached - step_of(saved), 0)
    also = f" ({lost} {'step' if lost == 1 else 'steps'} lost)" if lost else ""
    return f"saved at step {step_of(saved)} of {wanted}{also}"


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a JSONL file, as far as they are whole."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _last(trainer: QreditTrainer, metric: str) -> float | None:
    """The newest logged value of a metric; None where there is none."""
    return next((entry[metric] for entry in reversed(trainer.state.log_history) if metric in entry), None)


def _prepare_folder(folder: RunFolder, options: TrainOptions, resume: bool) -> list[Path]:
    """The run folder made ready by the main process; the folders that it had to make."""
    made: list[Path] = []
    if PartialState().is_main_process:
        if resume:
            folder.require_existing()
            folder.check_same_options(options)
        else:
            made = folder.create_folder()
    PartialState().wait_for_everyone()
    return made


def _remove_empty_folders(folders: Sequence[Path]) -> None:
    """Remove folders that were made for nothing, innermost first, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def build_trainer(options: TrainOptions, folder: RunFolder) -> tuple[QreditTrainer, dict[str, Any]]:
    """The trainer of a run, and what is worth recording about its data."""
    given = parse_rewards(options.rewards)
    check_objective_of_task(options)
    path = resolve_model_path(options.model, options.task, options.coldness)
    if is_adapter(path):
        raise QreditError(f"model folder {path} holds LoRA adapters only; train from a run that was given --merge-lora")
    args = make_config(options, folder.path)
    weights = [reward.weight for reward in given]
    args.reward_weights = None if set(weights) == {1.0} else weights
    data = load_data(options, "train", options.get_subset_size())
    examples: Sequence[Example] = data.examples
    filtered: dict[str, int] = {}
    if options.keep is not None and options.probe is not None:
        found = filter_examples(examples, ExampleFilter(options.keep), Path(options.probe), options.prompts_per_step)
        filtered = {"kept": len(found.examples), "left_out_by_keep": found.left_out, "unprobed": found.unprobed}
        examples = found.examples
    tokenizer = load_tokenizer(path)  # after what is on this machine: it may have to be fetched
    facts: dict[str, Any] = {
        "train_examples": len(examples),
        "unparseable_golds": len(given[0].unparseable(examples)),
        "data_notes": list(data.notes),
        "model_path": path,
        **filtered,
    }
    samples = SampleWriter(folder.samples, options.log_every)
    recorder = CreditRecorder(folder.credit, options.log_every, tokenizer)
    watchers: list[Any] = [MetricsWriter(folder.metrics), samples, recorder]
    decisions = DecisionWriter(folder.decisions)
    guard = None if options.guard is None else CollapseGuard(options.guard, validates=options.eval_every > 0)
    notes: list[str] = []
    model = load_model(path, notes=notes)
    check_trainable(model, path, options.lora)
    judged = choose_eval_rewards(given, tasks.get(options.task).metrics)
    validation = _make_validation(options, judged, tokenizer, model, folder, guard)
    with _reraise_as_qredit_error(ValueError, ImportError):
        trainer = WarmupTrainer(
            model,
            options.make_objective(),
            args,
            make_dataset(
                examples, apply_chat_format(examples, tokenizer, options.chat), any(reward.own for reward in given)
            ),
            reward_funcs=[reward.function for reward in given],
            processing_class=tokenizer,
            callbacks=[*watchers, *filter(None, (validation, guard, decisions))],  # validated before it is judged
            peft_config=_lora(options),
        )
    trainer.remove_callback(PrinterCallback)
    samples.run, decisions.overrides = trainer, trainer.overrides
    if validation is not None:
        validation.run = trainer
    facts |= {
        "model_notes": notes,
        "computed_in": get_compute_dtype(trainer.accelerator),
        "environment": collect_variables(),
    }
    facts["train_prompts"] = len(trainer.train_dataset)
    facts["end"] = trainer.format.format.end
    facts["end_notice"] = describe_end_conflict(trainer.format, get_eos_token_ids(model), trainer.chat_template_kwargs)
    facts["answers_over_budget"] = sum(len(ids) > args.answer_budget for ids in trainer.train_dataset["answer_ids"])
    return trainer, facts


def make_config(options: TrainOptions, output: Path) -> QreditConfig:
    """The training arguments that the options stand for.

    Raises:
        QreditError: sizes that split a group or do not divide over the processes; whatever TRL refuses.
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
    total, answer = options.budget
    saves = options.save_every or options.eval_every
    chosen: dict[str, Any] = {
        "output_dir": str(output),
        "per_device_train_batch_size": options.m * at_once,
        "gradient_accumulation_steps": each // at_once,
        "num_generations": options.m,
        "rows_per_forward": options.rows_per_forward,
        "max_steps": options.steps,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": choose_warmup_steps(options.steps, options.warmup),
        "max_completion_length": total,
        "answer_budget": answer,
        "thinking_opening": options.thinking_opening,
        "thinking_closing": options.thinking_closing,
        "answer_seam": options.answer_seam,
        "answer_end": options.answer_end,
        "skip_long": options.skip_long,
        "seed": options.seed,
        "logging_steps": options.log_every,
        "save_strategy": "steps" if saves else "no",
        "save_steps": saves or 500,
        "disable_tqdm": True,
        "save_total_limit": 3,
        "use_cpu": options.device.type == "cpu",
        "bf16": options.half,
    }
    chosen |= {**options.training, "report_to": parse_report_to(options.training.get("report_to"))}
    with _reraise_as_qredit_error(ValueError, TypeError):
        return QreditConfig(**chosen)


@contextlib.contextmanager
def _reraise_as_qredit_error(*kinds: type[Exception]) -> Iterator[None]:
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
    parameters = sum(p.numel() for p in trainer.model.parameters())
    rollouts = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    groups = rollouts // args.num_generations
    return planning.Plan(
        prompts=planning.render_prompts(trainer.format, rows["prompt"], 3, trainer.chat_template_kwargs),
        prompt_ids=tuple(planning.decode_ids(trainer._tokenizer, ids) for ids in rows["prompt_ids"][:3]),
        end_notice=facts["end_notice"],
        seam=planning.describe_layout(trainer.format, trainer._tokenizer, rows["answer"][0]),
        prompt_tokens=planning.summarize_lengths(prompt_lengths),
        answer_tokens=planning.summarize_lengths([len(ids) for ids in rows["answer_ids"]]),
        examples=len(rows),
        left_out=facts["train_examples"] - len(rows),
        model_notes=tuple(facts["model_notes"]),
        unparseable_golds=facts["unparseable_golds"],
        answers_over_budget=facts["answers_over_budget"],
        data_notes=facts["data_notes"],
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


def _find_checkpoint(folder: RunFolder, options: TrainOptions, console: Console) -> Path | None:
    """The newest whole checkpoint, or None: a run that was stopped before its first one starts again.

    Raises:
        QreditError: the run is finished and kept no checkpoint, or it has done more steps than are asked for.
    """
    found, torn = find_newest_complete(folder.path)
    for name, reason in torn.items():
        console.print(f"skipping {name}: {reason}", markup=False)
    if found is None:
        if folder.final.exists():
            raise QreditError(f"the run in {folder.path} is finished, and kept no checkpoint to go on from")
        console.print("no whole checkpoint yet: starting from the beginning")
        for path in (folder.metrics, folder.samples, folder.credit, folder.validation, folder.decisions):
            path.unlink(missing_ok=True)
    elif step_of(found) > options.steps:
        raise QreditError(f"the run in {folder.path} has done {step_of(found)} steps, more than steps={options.steps}")
    return found


def _make_validation(
    options: TrainOptions,
    rewards: Sequence[Reward],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    folder: RunFolder,
    guard: CollapseGuard | None,
) -> ValidationCallback | None:
    if not options.eval_every:
        return None
    asked = load_examples(options, "validation", options.eval_questions)
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


def _lora(options: TrainOptions) -> LoraConfig | None:
    if not options.lora:
        return None
    return LoraConfig(
        r=options.lora_r, lora_alpha=2 * options.lora_r, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _write_final(trainer: QreditTrainer, options: TrainOptions, folder: RunFolder, last: Path | None) -> int | None:
    """The final model: the best checkpoint by validation m@k if there is validation, else the last weights.

    Written aside and renamed, so that a folder of that name is whole.

    Args:
        last: the checkpoint that holds the last weights, where the trainer itself took no step.
    """
    best = find_best_step(folder.validation, f"m@{options.eval_k}") if options.eval_every else None
    source = last if best is None else folder.path / f"checkpoint-{best}"
    aside = folder.path / "_final"
    if trainer.is_world_process_zero():
        shutil.rmtree(aside, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    with report_write_errors(folder.final):
        if source is None:
            trainer.save_model(str(aside))
        if trainer.is_world_process_zero():
            if source is not None:
                _copy_model(source, aside)
            if options.merge_lora:
                _merge(trainer, aside)
            _write_card(trainer, options, folder, aside, best)
            replace_folder(aside, folder.final, folder.path / "_replaced")
    trainer.accelerator.wait_for_everyone()
    return best


def _write_card(trainer: QreditTrainer, options: TrainOptions, run: RunFolder, model: Path, best: int | None) -> None:
    """The card of the final model, with the validation that it was chosen by, or the last one."""
    data = " ".join(filter(None, (options.task, options.style, options.data)))
    validations = [entry for entry in _entries(run.validation) if best is None or entry["step"] == best]
    told = validations[-1] if validations else {}
    scores = {f"{name}, validation": f"{100 * value:.1f} %" for name, value in told.items() if "@" in name}
    card = replace(trainer.make_card(run.path.name, data, ["qredit"]), scores=scores)
    for folder in (run.path, model):
        (folder / "README.md").write_text(render_card(card), encoding="utf-8")


def _copy_model(checkpoint: Path, folder: Path) -> None:
    """The files of a checkpoint that make a model folder."""
    folder.mkdir()
    for pattern in _MODEL_FILES:
        for path in checkpoint.glob(pattern):
            if path.name not in (MANIFEST, STATE_FILE, "trainer_state.json"):
                shutil.copy(path, folder / path.name)


def _merge(trainer: QreditTrainer, folder: Path) -> None:
    """Replace the adapters in a folder by the whole model with the adapters merged in."""
    from peft import PeftModel

    base = load_model(trainer.model.get_base_model().config._name_or_path)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    for path in folder.glob("adapter_*"):
        path.unlink()
    merged.to(torch.float32).save_pretrained(folder)
