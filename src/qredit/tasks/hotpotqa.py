"""HotPotQA, distractor setting: ten passages, two of which answer the question together."""

from collections.abc import Iterable, Mapping, Sequence

from qredit.tasks.base import Example, Record, Split, Style, Task
from qredit.tasks.files import SplitLayout, read_table, take_half
from qredit.tasks.prompt_text import MULTI_HOP, build_prompt, format_passage

_DEV = ("hotpot_dev_distractor_v1.json",)
LAYOUT = SplitLayout(
    files={"train": ("hotpot_train_v1.1.json",), "validation": _DEV, "test": _DEV},
    hub={"train": "train", "validation": "validation", "test": "validation"},
)


def read(source: str | None, split: Split) -> Iterable[Record]:
    """Records in the schema of the official files.

    The official test labels are hidden: validation and test are the halves of the official dev set; see `take_half`.
    """
    records = [_raw(record) for _, record in read_table(source, split, LAYOUT).iter_records(_fields)]
    return records if split == "train" else take_half(records, split, "_id")


def render(record: Record, style: Style) -> Example:
    """The passages, one per line, then the question.

    Args:
        record: _id, question, answer, and context, a list of [title, sentences].
    """
    passages = [format_passage(title, "".join(sentences)) for title, sentences in record["context"]]
    return Example(
        prompt=build_prompt(style, MULTI_HOP, record["question"], passages),
        answer=record["answer"],
        id=record["_id"],
    )


HOTPOTQA = Task(
    name="hotpotqa",
    summary="HotPotQA (arXiv 1809.09600), distractor setting: two passages out of ten",
    read=read,
    render=render,
    metrics=("substring", "exact_match", "normalized_exact_match", "f1"),
    default_data="hotpotqa/hotpot_qa:distractor",
    sizes={"train": 9067, "validation": 342, "test": 343},
)


def _from_hub(record: Record) -> bool:
    """The Hub copy keeps lists inside dicts, {title: [...], sentences: [...]}, and calls the id "id"."""
    return isinstance(record.get("context"), Mapping)


def _fields(record: Record) -> Sequence[str]:
    if _from_hub(record):
        return ("id", "question", "answer", "context.title", "context.sentences")
    return ("_id", "question", "answer", "context")


def _raw(record: Record) -> Record:
    if not _from_hub(record):
        return record
    context = record["context"]
    passages = [list(pair) for pair in zip(context["title"], context["sentences"], strict=True)]
    return {**record, "_id": record["id"], "context": passages}
