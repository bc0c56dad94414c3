"""Metrics and credit of each step, where `qredit report` reads them, for trainers that have no callbacks of ours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qredit.callbacks.credit_recorder import TokenTexts, choose_interval, make_record
from qredit.callbacks.metrics_file import format_metrics
from qredit.engine.checkpoint import trim_lines
from qredit.engine.step import ScoredMicrobatch
from qredit.utils.atomic_files import append_text
from qredit.utils.sanitize import to_json_line


class StepRecords:
    """Appends a line to metrics.jsonl at every step, to credit.jsonl at 200 of them at most, and to decisions.jsonl.

    Args:
        folder: of the run; made if it is not there.
        tokenizer: for the texts of tokens.
        steps: of the whole run.
    """

    def __init__(self, folder: Path, tokenizer: Any, steps: int) -> None:
        self.metrics, self.credit, self.decisions = (
            folder / f"{name}.jsonl" for name in ("metrics", "credit", "decisions")
        )
        self._decided = 0
        self.texts, self.every = TokenTexts(tokenizer), choose_interval(steps, 1)

    def begin(self, step: int) -> None:
        """Before the first step. A run that goes on drops the lines of steps that its weights know nothing of.

        Files of a run that was there before, if this one begins anew, are kept under names with `.previous`.

        Args:
            step: the last one that was taken; 0 at the beginning.
        """
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.metrics, self.credit, self.decisions):
            if step == 0 and file.exists():
                file.replace(file.with_name(f"{file.name}.previous"))
            trim_lines(file, step)
        self._decided = len(self.decisions.read_text(encoding="utf-8").splitlines()) if self.decisions.exists() else 0

    def write(
        self,
        step: int,
        metrics: Mapping[str, Any],
        learned: ScoredMicrobatch,
        decisions: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write down a step.

        Args:
            step: of the run, from 1.
            metrics: numbers by name; what is no number is left out.
            learned: the first group of it is what the credit viewer shows.
            decisions: all that were made so far, in order.
        """
        if fresh := decisions[self._decided :]:
            append_text(self.decisions, "".join(map(to_json_line, fresh)))
        self._decided = len(decisions)
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        append_text(self.metrics, format_metrics(step, numbers))
        if step % self.every == 0:
            append_text(self.credit, to_json_line({"step": step} | make_record(learned, self.texts)))
