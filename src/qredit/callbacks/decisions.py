"""What guide and guard decided, with the reason, in decisions.jsonl."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qredit.callbacks.metrics_file import AppendLines
from qredit.engine.protocols import Steering
from qredit.utils.plain import json_line
from qredit.utils.whole import append


class KeepDecisions(AppendLines):
    """Appends what guide and guard decided, with the reason, to decisions.jsonl; `step` is the last one before it.

    Attributes:
        steering: the parts that decide.
        tell: also told the newest decision, in a line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.steering: Sequence[Steering] = ()
        self.tell: Callable[[str], None] = lambda text: None
        self._kept = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self._kept = len(self.path.read_text(encoding="utf-8").splitlines()) if self.path.exists() else 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(state)

    def _keep(self, state: Any) -> None:
        every = sorted((one for part in self.steering for one in part.decided()), key=lambda one: int(one["step"]))
        fresh = every[self._kept :]
        self._kept += len(fresh)
        if state.is_world_process_zero and fresh:
            append(self.path, "".join(map(json_line, fresh)))
            self.tell("after step {step}: {change}; {reason}".format_map(fresh[-1]))
