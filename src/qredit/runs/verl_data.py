"""A task's examples as verl's parquet: prompt, reward_model.ground_truth, extra_info, data_source; needs no verl."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from qredit.rewards.reward_spec import collect_columns
from qredit.runs.load import check_message_keys, infer_column_type, is_single_file, load_data
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example, Split
from qredit.utils.atomic_files import atomic_write
from qredit.utils.errors import QreditError, unknown_name_error

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_OURS: Mapping[str, pyarrow.DataType] = {
    "split": pyarrow.string(),
    "index": pyarrow.int64(),
    "id": pyarrow.string(),
    "aliases": pyarrow.list_(pyarrow.string()),
}
_JUDGED = pyarrow.struct({"style": pyarrow.string(), "ground_truth": pyarrow.string()})


@dataclass(frozen=True)
class WrittenSplit:
    """One file that was written.

    Attributes:
        rows: how many it holds.
        notes: what has to be said about how they were read.
    """

    file: Path
    rows: int
    notes: tuple[str, ...]


def write_verl_data(options: TrainOptions, folder: Path, splits: Sequence[Split] = ()) -> list[WrittenSplit]:
    """SPLIT.parquet for each split, all of them read before the first is written.

    Args:
        options: those of data count.
        folder: made if it is not there.
        splits: none is train and validation; of a single file of which no row is held out, train alone.

    Raises:
        QreditError: as `load_data`; a file that exists; values that no table can hold.
    """
    chosen = list(splits) or list_default_splits(options)
    files = {split: folder / f"{split}.parquet" for split in chosen}
    for file in files.values():
        if file.exists():
            raise QreditError(f"{file} exists already; give another folder")
    read = {split: load_data(options, split, _count(options, split)) for split in chosen}
    tables = {split: make_verl_table(found.examples, options.task, split) for split, found in read.items()}
    for split, table in tables.items():
        with atomic_write(files[split]) as aside:
            pyarrow.parquet.write_table(table, aside)
    return [WrittenSplit(files[split], tables[split].num_rows, read[split].notes) for split in chosen]


def list_default_splits(options: TrainOptions) -> list[Split]:
    """Train and validation; of a single file of which no row is held out, train alone."""
    return ["train"] if is_single_file(options) and not options.held_out else ["train", "validation"]


def parse_splits(text: str) -> list[Split]:
    """The splits that a list names, such as "train,test", each once.

    Raises:
        QreditError: another name; none.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in SPLITS:
            raise unknown_name_error("split", name, SPLITS)
    if not names:
        raise QreditError(f"splits must name one at least of {', '.join(SPLITS)}")
    return [split for split in SPLITS if split in names]


def _count(options: TrainOptions, split: Split) -> int | None:
    return options.get_subset_size() if split == "train" else None


def make_verl_table(examples: Sequence[Example], task: str, split: Split) -> pyarrow.Table:
    """The rows that verl's RLHFDataset reads, in the order of the examples.

    A prompt that is a text becomes one message of the user, as verl expects messages. Whether it goes through a chat
    template is the run's to say. Further columns of the user's data stand in extra_info under their own names.

    Args:
        examples: questions with their reference answers.
        task: what data_source names: metrics of a validation carry it, and its reward is the default one.
        split: stands in extra_info.

    Raises:
        QreditError: messages or a further column that no table can hold; a further column of a name that is taken.
    """
    further = collect_columns(examples)
    for name in further:
        if name in _OURS or name in _READ_BY_VERL:
            raise QreditError(f"column '{name}' has the name of a key of extra_info that is taken; rename it")
    types = {**_OURS, **{name: infer_column_type(name, values) for name, values in further.items()}}
    infos = [
        {
            "split": split,
            "index": row,
            "id": one.id,
            "aliases": list(one.aliases),
            **{name: values[row] for name, values in further.items()},
        }
        for row, one in enumerate(examples)
    ]
    prompts = [list_messages(one.prompt) for one in examples]
    with check_message_keys():
        messages = pyarrow.array(prompts)
    judged = [{"style": "rule", "ground_truth": one.gold} for one in examples]
    return pyarrow.table(
        {
            "data_source": pyarrow.array([task] * len(examples), pyarrow.string()),
            "prompt": messages,
            "reward_model": pyarrow.array(judged, _JUDGED),
            "extra_info": pyarrow.array(infos, pyarrow.struct(types)),
        }
    )


_READ_BY_VERL = ("tools_kwargs", "interaction_kwargs", "need_tools_kwargs")


def list_messages(prompt: Any) -> list[Any]:
    """A prompt as messages: a text is what the user says."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
