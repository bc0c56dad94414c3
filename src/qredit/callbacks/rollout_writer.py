"""Every rollout of a run as token ids with its reward, in rollouts.jsonl."""

from collections.abc import Sequence
from typing import Any

from qredit.callbacks.metrics_file import JsonLinesCallback
from qredit.data.completions import CompletionGroup
from qredit.utils.atomic_files import append_text
from qredit.utils.sanitize import to_json_line


class RolloutWriter(JsonLinesCallback):
    """Appends the groups of each generation to rollouts.jsonl, on the main process.

    Give it to the trainer as a callback. It changes nothing.
    """

    _writes = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self._writes = bool(state.is_world_process_zero)

    def observe(self, step: int, groups: Sequence[CompletionGroup]) -> None:
        """Write a line for each group.

        Args:
            step: the first one that learns from them: a run that is resumed before it samples them anew.
            groups: of all processes.
        """
        if self._writes:
            append_text(self.path, "".join(to_json_line({"step": step} | group.as_record()) for group in groups))
