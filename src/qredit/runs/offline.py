"""What runs that learn from given completions have in common: training arguments, and facts for the record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel

from qredit.rollouts.answer_end import describe_end_conflict, get_eos_token_ids
from qredit.runs.options import TrainOptions
from qredit.runs.train import list_shared_arguments, reraise_as_qredit_error
from qredit.trl.environment_variables import collect_variables, get_compute_dtype
from qredit.trl.offline_trainer import OfflineTrainer

Config = TypeVar("Config")


def make_offline_config(
    kind: type[Config], run: TrainOptions, learning_rate: float, output: Path, **own: Any
) -> Config:
    """The training arguments that the options stand for.

    Args:
        kind: of TRL's arguments.
        run: the options that are those of training.
        learning_rate: its largest value.
        output: the run folder.
        own: fields of this kind alone.

    Raises:
        QreditError: sizes that do not divide over the processes; whatever TRL refuses.
    """
    shared, each, at_once = list_shared_arguments(run, learning_rate, output)
    chosen = {
        **shared,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": each // at_once,
        "gradient_checkpointing": run.device.type != "cpu",
        **own,
        **{name: value for name, value in run.training.items() if name not in ("chat_template_kwargs", "report_to")},
    }
    with reraise_as_qredit_error(ValueError, TypeError):
        return kind(**chosen)


def list_model_facts(trainer: OfflineTrainer, model: PreTrainedModel, path: str, notes: list[str]) -> Mapping[str, Any]:
    """What is worth recording about the model of a run.

    Args:
        trainer: of the run.
        model: as it was loaded.
        path: where from.
        notes: what of its files was mended.
    """
    tokens = trainer.format
    return {
        "model_path": path,
        "model_notes": notes,
        "computed_in": get_compute_dtype(trainer.accelerator),
        "environment": collect_variables(),
        "end": tokens.format.end,
        "end_notice": describe_end_conflict(tokens, get_eos_token_ids(model), trainer.template),
    }
