"""The run that another one goes on from: its model, what it says of data and format, and the rollouts that it kept."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from qredit.data.completions import CompletionGroup
from qredit.engine.checkpoint import find_newest_complete
from qredit.runs.folder import RunFolder
from qredit.runs.load import is_single_file
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError

T = TypeVar("T")
INHERITED = (
    *("task", "data", "style", "passages", "prompt_column", "answer_column", "aliases_column", "aliases", "subset"),
    *("system_prompt", "instruction", "few_shot", "reward", "chat", "thinking_opening", "thinking_closing"),
    *("answer_seam", "answer_end", "skip_long", "env", "tools", "max_turns", "episode_budget", "tool_seconds"),
    *("eval_questions", "cpu", "dtype"),
)
"""Options that a run which goes on from another one has from it, as far as they are not given."""
READ_OPTIONS = frozenset(
    (*INHERITED, "model", "coldness", "max_completion_length", "answer_budget", "observation_budget", "eval_every")
) | {"hold_out", "chat_template_kwargs"}
"""What is read of the config of the other run."""


def find_run_model(run: RunFolder) -> Path | None:
    """The final model of a run; of a stopped one its newest whole checkpoint, if there is one."""
    return run.final if run.final.is_dir() else find_newest_complete(run.path)[0]


def inherit_options(trained: TrainOptions) -> dict[str, Any]:
    """What a run that goes on from another one has from it, by the names of options; what is not set is left out.

    Budgets are kept as they were: they may have been those of a pocket model. So are the rows held out of a single
    file.

    Args:
        trained: the options of the other run.
    """
    total, answer = trained.budget
    kept = {name: getattr(trained, name) for name in INHERITED}
    kept |= {"max_completion_length": total, "answer_budget": answer}
    if trained.env or trained.tools:
        kept["observation_budget"] = trained.episodes.observation
    if trained.held_out and is_single_file(trained):
        kept["hold_out"] = trained.held_out
    template = {name: value for name, value in trained.training.items() if name == "chat_template_kwargs"}
    return {name: value for name, value in {**kept, **template}.items() if value is not None}


def read_kept_rollouts(run: RunFolder) -> list[CompletionGroup]:
    """The rollouts that a run kept, in the groups in which they were drawn.

    Raises:
        QreditError: it kept none, or the file holds something else.
    """
    if not run.rollouts.is_file():
        raise QreditError(
            f"the run in {run.path} kept no rollouts: give rollouts, how many to sample for each question, or train "
            "with --keep-rollouts"
        )
    return read_records(run.rollouts, CompletionGroup.from_record)


def read_records(path: Path, parse: Callable[[Mapping[str, Any]], T], finished: bool = False) -> list[T]:
    """What each line of a JSONL file holds.

    Args:
        path: the file.
        parse: what makes a value of a line's JSON; it raises ValueError for what it cannot read.
        finished: whoever wrote it is done: a last line without a line break counts, too. Else it was cut off, and is
            left out.

    Raises:
        QreditError: the file cannot be read, or one of its lines; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise QreditError(f"cannot read {path}: {error.strerror}") from None
    if not (finished and lines[-1].strip()):
        del lines[-1]  # behind the last line break stands nothing, or half a line
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise QreditError(f"{path}, line {number}: {error}") from None
    return found
