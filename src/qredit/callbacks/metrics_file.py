"""JSON lines that a run appends to metrics.jsonl and other files, and never one that the weights do not know of."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from qredit.engine.checkpoint import trim_lines
from qredit.utils.atomic_files import append_text
from qredit.utils.former_names import former_names


class JsonLinesCallback(TrainerCallback):  # type: ignore[misc]
    """Appends lines with their step to a file; a resumed run first drops those that came after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and state.global_step > 0:
            trim_lines(self.path, state.global_step)


class MetricsWriter(JsonLinesCallback):
    """Appends every logged dictionary.

    Numbers that are not finite are written as null, so that any JSON reader can read the file.
    """

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs:
            append_text(self.path, format_metrics(state.global_step, logs))


def format_metrics(step: int, metrics: Mapping[str, Any]) -> str:
    """The line of a step in metrics.jsonl.

    Args:
        step: of the run.
        metrics: values by name; numbers that are not finite become null.
    """
    return json.dumps({"step": step} | {name: _finite(value) for name, value in metrics.items()}) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


__getattr__ = former_names(__name__, {"MetricsFile": "MetricsWriter", "AppendLines": "JsonLinesCallback"})
