"""What guide and guard decided, with the reason, in decisions.jsonl."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qredit.callbacks.metrics_file import JsonLinesCallback
from qredit.engine.protocols import ObjectiveOverride
from qredit.utils.atomic_files import append_text
from qredit.utils.sanitize import to_json_line

__all__ = ["DecisionWriter", "merge_decisions"]


def merge_decisions(parts: Sequence[ObjectiveOverride]) -> list[dict[str, Any]]:
    """What several parts decided, by step; new decisions stand behind all former ones."""
    return sorted((one for part in parts for one in part.list_decisions()), key=lambda one: int(one["step"]))


class DecisionWriter(JsonLinesCallback):
    """Appends what guide and guard decided, with the reason, to decisions.jsonl; `step` is the last one before it.

    Args:
        path: of decisions.jsonl.

    Attributes:
        overrides: the parts that decide: `trainer.overrides`, to be set once there is a trainer.
        notify: also told the newest decision, in a line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.overrides: Sequence[ObjectiveOverride] = ()
        self.notify: Callable[[str], None] = lambda text: None
        self._kept = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self._kept = len(self.path.read_text(encoding="utf-8").splitlines()) if self.path.exists() else 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(state)

    def _keep(self, state: Any) -> None:
        fresh = merge_decisions(self.overrides)[self._kept :]
        self._kept += len(fresh)
        if state.is_world_process_zero and fresh:
            append_text(self.path, "".join(map(to_json_line, fresh)))
            self.notify("after step {step}: {change}; {reason}".format_map(fresh[-1]))
