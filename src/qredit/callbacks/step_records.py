"""Metrics and credit of each step, where `qredit report` reads them, for trainers that have no callbacks of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qredit.callbacks.credit_recorder import TokenTexts, choose_interval, make_record
from qredit.callbacks.metrics_file import format_metrics
from qredit.engine.checkpoint import trim_lines
from qredit.engine.step import ScoredMicrobatch
from qredit.utils.atomic_files import append_text
from qredit.utils.sanitize import to_json_line


class StepRecords:
    """Appends a line to metrics.jsonl at every step, and to credit.jsonl at 200 of them at most.

    Args:
        folder: of the run; made if it is not there.
        tokenizer: for the texts of tokens.
        steps: of the whole run.
    """

    def __init__(self, folder: Path, tokenizer: Any, steps: int) -> None:
        self.metrics, self.credit = folder / "metrics.jsonl", folder / "credit.jsonl"
        self.texts, self.every = TokenTexts(tokenizer), choose_interval(steps, 1)

    def begin(self, step: int) -> None:
        """Before the first step. A run that goes on drops the lines of steps that its weights know nothing of.

        Files of a run that was there before, if this one begins anew, are kept under names with `.previous`.

        Args:
            step: the last one that was taken; 0 at the beginning.
        """
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.metrics, self.credit):
            if step == 0 and file.exists():
                file.replace(file.with_name(f"{file.name}.previous"))
            trim_lines(file, step)

    def write(self, step: int, metrics: Mapping[str, Any], learned: ScoredMicrobatch) -> None:
        """Write down a step.

        Args:
            step: of the run, from 1.
            metrics: numbers by name; what is no number is left out.
            learned: the first group of it is what the credit viewer shows.
        """
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        append_text(self.metrics, format_metrics(step, numbers))
        if step % self.every == 0:
            append_text(self.credit, to_json_line({"step": step} | make_record(learned, self.texts)))
