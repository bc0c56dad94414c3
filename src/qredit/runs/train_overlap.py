"""Which questions a run was trained on, and what a set of questions is truthfully called."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qredit.runs.load import is_single_file, load_examples
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example
from qredit.tasks.normal_forms import normalize_prompt
from qredit.utils.errors import QreditError

# Options that say which examples of its data a run trains on.
SUBSET_OPTIONS = ("eval_every", "eval_questions", "hold_out", "subset")
# Options that change the words of a prompt and not what it asks.
WORDING_OPTIONS = ("style", "passages", "system_prompt", "instruction", "few_shot")


def count_trained_on(examples: Sequence[Example], options: TrainOptions, trained: TrainOptions | None) -> int | None:
    """How many of the examples ask what a run was trained on; None where that cannot be known.

    The splits of an official data set are apart. So questions are compared only where either is a single file.

    Args:
        examples: questions with their reference answers.
        options: how the examples were read.
        trained: the run's options, `SUBSET_OPTIONS` among them.
    """
    if trained is None or trained.task != options.task or options.data is None or trained.data is None:
        return None
    if options.task != "jsonl" and not (is_single_file(options) or is_single_file(trained)):
        return None
    alike = replace(trained, **{name: getattr(options, name) for name in WORDING_OPTIONS})
    try:
        rows = load_examples(alike, "train", trained.get_subset_size(), needed=None)
    except QreditError:  # the file has moved or changed since
        return None
    known = {normalize_prompt(example.prompt) for example in rows}
    return sum(normalize_prompt(example.prompt) in known for example in examples)


def describe_questions(split: str, rows_of: str | None, whole: bool, count: int, seen: int | None) -> str:
    """The split, or "all 8 rows of mine.jsonl" for a file without splits; and how many of them were trained on.

    Args:
        split: its name.
        rows_of: a file without splits.
        whole: all of its rows.
        count: questions.
        seen: how many were trained on; None where that is not known.
    """
    name = split if rows_of is None else f"{'all' if whole else 'first'} {count} rows of {Path(rows_of).name}"
    return f"{name}, {seen} of them trained on" if seen else name
