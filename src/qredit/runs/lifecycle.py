"""The life of a run, whatever it learns from: its folder, the checkpoint to go on from, its steps, the final model."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.console import Console
from transformers import BitsAndBytesConfig

from qredit.callbacks.collapse_guard import has_guard_ended_run
from qredit.callbacks.decisions import DecisionWriter
from qredit.callbacks.validation import find_best_step
from qredit.engine.checkpoint import MANIFEST, find_newest_complete, replace_folder, step_of
from qredit.engine.run_state import STATE_FILE
from qredit.runs import plan as planning
from qredit.runs.folder import RunFolder
from qredit.runs.live import LiveView
from qredit.runs.load import load_model
from qredit.runs.options import TrainOptions
from qredit.runs.quantization import make_quantization_config
from qredit.runs.stop_signals import StopOnSignal
from qredit.tasks.few_shot import read_few_shot
from qredit.trl.answer_stops import list_answer_stops, ready_to_serve
from qredit.trl.lost_process import report_lost_process
from qredit.trl.model_card import render_card
from qredit.trl.run_trainer import RunTrainer
from qredit.trl.usage import to_code
from qredit.utils.atomic_files import report_write_errors
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars

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


def run_to_the_end(
    output: Path,
    options: TrainOptions,
    config: Mapping[str, Any],
    build: Callable[[RunFolder], tuple[RunTrainer, dict[str, Any]]],
    console: Console,
    resume: bool = False,
) -> TrainResult:
    """Make the folder of a run, or go on with it; take its steps; leave the final model. Progress goes to `console`.

    Args:
        output: the run folder.
        options: model, data, steps and validation of the run.
        config: what config.yaml holds, by the names of options.
        build: makes the trainer, and what is worth recording about its data; called before anything is written.
        console: where progress is shown.
        resume: go on with the run in the folder.

    Raises:
        QreditError: anything that cannot be used, before any compute; a run folder in use, or another run's.
    """
    folder = RunFolder(output)
    made = _prepare_folder(folder, config, resume)
    start = _find_checkpoint(folder, options, console) if resume else None
    try:
        trainer, facts = build(folder)
    except BaseException:
        _remove_empty_folders(made)
        raise
    said = tuple(planning.list_data_notices(facts))
    if trainer.is_world_process_zero():
        folder.write_config(config)
        folder.write_record(str(trainer.objective), trainer.checkpointer.expansion, options.seed, facts)
        for notice in said:
            console.print(escape_control_chars(notice), markup=False)
    wording = describe_wording(options)  # now: a file that it reads may be gone when the run ends
    done = 0 if start is None else step_of(start)
    if done < options.steps and not (start is not None and has_guard_ended_run(start)):
        _take_steps(trainer, start, console)
        start, done = None, trainer.state.global_step
        facts["unended"] = _last(trainer, "completions/clipped_ratio")
    best = _write_final(trainer, options, wording, folder, start)
    return TrainResult(output, folder.final, done, best, facts, said)


def _take_steps(trainer: RunTrainer, start: Path | None, console: Console) -> None:
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
        with report_lost_process("Whole checkpoints are left. Start all processes again with --resume."):
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


def _last(trainer: RunTrainer, metric: str) -> float | None:
    """The newest logged value of a metric; None where there is none."""
    return next((entry[metric] for entry in reversed(trainer.state.log_history) if metric in entry), None)


def _prepare_folder(folder: RunFolder, config: Mapping[str, Any], resume: bool) -> list[Path]:
    """The run folder made ready by the main process; the folders that it had to make."""
    made: list[Path] = []
    if PartialState().is_main_process:
        if resume:
            folder.require_existing()
            folder.check_same_options(config)
        else:
            made = folder.create_folder()
    PartialState().wait_for_everyone()
    return made


def _remove_empty_folders(folders: Sequence[Path]) -> None:
    """Remove folders that were made for nothing, innermost first, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


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
        for path in folder.logs:
            path.unlink(missing_ok=True)
    elif step_of(found) > options.steps:
        raise QreditError(f"the run in {folder.path} has done {step_of(found)} steps, more than steps={options.steps}")
    return found


def _write_final(
    trainer: RunTrainer, options: TrainOptions, wording: Mapping[str, str], folder: RunFolder, last: Path | None
) -> int | None:
    """The final model: the best checkpoint by validation m@k if there is validation, else the last weights.

    Written aside and renamed, so that a folder of that name is whole.

    Args:
        trainer: holds the last weights, unless `last` does.
        options: of the run.
        wording: as `describe_wording` gives it.
        folder: of the run.
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
                _merge(trainer, aside, make_quantization_config(options))
            _write_card(trainer, options, wording, folder, aside, best)
            replace_folder(aside, folder.final, folder.path / "_replaced")
    trainer.accelerator.wait_for_everyone()
    return best


def describe_wording(options: TrainOptions) -> dict[str, str]:
    """What is put around every prompt, as a model card says it."""
    shots = None if options.few_shot is None else json.dumps(read_few_shot(options.few_shot), ensure_ascii=False)
    wording = {
        "system message": options.system_prompt,
        "messages before each prompt": shots,
        "text behind each prompt": options.instruction,
    }
    return {name: to_code(text) for name, text in wording.items() if text is not None}


def _write_card(
    trainer: RunTrainer,
    options: TrainOptions,
    wording: Mapping[str, str],
    run: RunFolder,
    model: Path,
    best: int | None,
) -> None:
    """The card of the final model, with the validation that it was chosen by, or the last one."""
    data = " ".join(filter(None, (options.task, options.style, options.data)))
    validations = [entry for entry in _entries(run.validation) if best is None or entry["step"] == best]
    told = validations[-1] if validations else {}
    scores = {f"{name}, validation": f"{100 * value:.1f} %" for name, value in told.items() if "@" in name}
    card = trainer.make_card(run.path.name, data, ["qredit"])
    card = replace(card, scores=scores, settings={**(card.settings or {}), **wording})
    for folder in (run.path, model):
        (folder / "README.md").write_text(render_card(card), encoding="utf-8")


def _copy_model(checkpoint: Path, folder: Path) -> None:
    """The files of a checkpoint that make a model folder."""
    folder.mkdir()
    for pattern in _MODEL_FILES:
        for path in checkpoint.glob(pattern):
            if path.name not in (MANIFEST, STATE_FILE, "trainer_state.json"):
                shutil.copy(path, folder / path.name)


def _merge(trainer: RunTrainer, folder: Path, quantization: BitsAndBytesConfig | None) -> None:
    """Replace the adapters in a folder by the whole model with the adapters merged in.

    Adapters that were trained on 4-bit weights are merged into the numbers that these stood for: the model before it
    was rounded would be another one than they were trained on.
    """
    from peft import PeftModel

    base = load_model(trainer.model.get_base_model().config._name_or_path, quantization=quantization)
    if quantization is not None:
        base = base.dequantize().to(torch.float32)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    for path in folder.glob("adapter_*"):
        path.unlink()
    with ready_to_serve(merged, list_answer_stops(trainer.format)):
        merged.to(torch.float32).save_pretrained(folder)
