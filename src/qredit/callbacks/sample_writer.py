"""The first group of each logged step, as text, in samples.jsonl."""

from pathlib import Path
from typing import Any

from qredit.callbacks.metrics_file import JsonLinesCallback
from qredit.engine.protocols import InspectableRun
from qredit.utils.atomic_files import append_text
from qredit.utils.former_names import former_names
from qredit.utils.sanitize import to_json_line


class SampleWriter(JsonLinesCallback):
    """Appends, at each logged step, the first group of the rollouts in use to samples.jsonl.

    Attributes:
        run: the one that is watched; nothing is written before there is one.
    """

    def __init__(self, path: Path, every: int) -> None:
        super().__init__(path)
        self.every = every
        self.run: InspectableRun | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run is None or not state.is_world_process_zero or state.global_step % self.every:
            return
        group = self.run.first_group()
        if group is not None:  # else it was kept before the resume
            append_text(self.path, to_json_line({"step": state.global_step} | group))


__getattr__ = former_names(__name__, {"KeepSamples": "SampleWriter"})
