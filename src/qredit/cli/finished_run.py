"""What a command that trains says at its end, and what an interrupted one can be gone on with."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from qredit.runs.folder import Command, RunFolder
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars

if TYPE_CHECKING:
    from qredit.runs.lifecycle import TrainResult


def find_resumed(output: str | None, command: Command) -> Path:
    """The folder of the run that --resume goes on with.

    Args:
        output: what --output was given.
        command: whose run it must be.

    Raises:
        QreditError: no folder was given, or it holds no run of that command.
    """
    if not output:
        raise QreditError("--resume needs --output, the folder of the run to go on with")
    RunFolder(Path(output)).require_existing(command)
    return Path(output)


@contextlib.contextmanager
def tell_how_to_resume(output: Path, steps: int, command: str) -> Iterator[None]:
    """Where Ctrl-C ends the run within, say what of it is saved and the command that goes on with it.

    Args:
        output: the run folder.
        steps: that were asked for.
        command: whose run it is.
    """
    try:
        yield
    except KeyboardInterrupt:
        folder = RunFolder(output)
        if not folder.config.is_file():
            raise
        from qredit.runs.lifecycle import describe_saved_steps

        words = escape_control_chars(f"qredit {command} --resume --output {output}")
        raise KeyboardInterrupt(f"{describe_saved_steps(folder, steps)}; go on with it: {words}") from None


def show_finished(finished: "TrainResult", objective: str, out: Console, quiet: bool) -> dict[str, Any]:
    """Notices on the data, what happened in words, and where the model is.

    Args:
        finished: what the run left.
        objective: what was learned, for the summary.
        out: where it is shown.
        quiet: the notices were not shown before the first step.

    Returns:
        the summary that --json prints.
    """
    from qredit.report.collect import collect_runs
    from qredit.report.sentences import describe_end
    from qredit.runs.plan import list_data_notices

    told = [notice for notice in list_data_notices(finished.facts) if quiet or notice not in finished.said]
    for sentence in (*told, *describe_end(collect_runs([finished.folder])[0])):
        out.print(escape(escape_control_chars(sentence)), soft_wrap=True)
    best = f" (best validation, step {finished.best_step})" if finished.best_step else ""
    out.print(f"final model{best}: {escape(escape_control_chars(str(finished.final)))}", soft_wrap=True)
    return {
        "run": str(finished.folder),
        "final": str(finished.final),
        "steps": finished.steps,
        "best_step": finished.best_step,
        "objective": objective,
        **finished.facts,
    }
