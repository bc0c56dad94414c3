"""HotPotQA, distractor setting: ten passages, two of which answer the question together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qredit.tasks.base import Example, Passages, Record, Split, Style, Task
from qredit.tasks.files import SplitLayout, read_table, take_half
from qredit.tasks.prompt_text import MULTI_HOP, build_prompt, format_passage

_DEV = ("hotpot_dev_distractor_v1.json",)
LAYOUT = SplitLayout(
    files={"train": ("hotpot_train_v1.1.json",), "validation": _DEV, "test": _DEV},
    hub={"train": "train", "validation": "validation", "test": "validation"},
)


def make_hotpotqa_task(passages: Passages = "all") -> Task:
    """The task whose prompts are the passages, one per line, then the question.

    The official test labels are hidden: validation and test are the halves of the official dev set; see `take_half`.

    Args:
        passages: "all" is the published distractor setting; "supporting" shows the two passages that the answer rests
            on, by supporting_facts; "none" asks the question alone.
    """

    def read(source: str | None, split: Split) -> Iterable[Record]:
        needed = ("supporting_facts",) if passages == "supporting" else ()
        table = read_table(source, split, LAYOUT)
        records = []
        for number, record in table.iter_records(lambda record: (*_fields(record), *needed)):
            records.append(_raw(record))
            if passages == "supporting" and not _select(records[-1], passages):
                raise table.error(number, "'supporting_facts' names no passage of 'context'")
        return records if split == "train" else take_half(records, split, "_id")

    def render(record: Record, style: Style) -> Example:
        shown = [format_passage(title, "".join(sentences)) for title, sentences in _select(record, passages)]
        return Example(
            prompt=build_prompt(style, MULTI_HOP[passages], record["question"], shown),
            answer=record["answer"],
            id=record["_id"],
        )

    return Task(
        name="hotpotqa",
        summary="HotPotQA (arXiv 1809.09600), distractor setting: two passages out of ten",
        read=read,
        render=render,
        metrics=("substring", "exact_match", "normalized_exact_match", "f1"),
        default_data="hotpotqa/hotpot_qa:distractor",
        sizes={"train": 9067, "validation": 342, "test": 343},
        with_passages=make_hotpotqa_task,
    )


def _select(record: Record, passages: Passages) -> list[Any]:
    """The [title, sentences] pairs that are shown."""
    if passages == "none":
        return []
    if passages == "all":
        return list(record["context"])
    titles = {title for title, _ in record["supporting_facts"]}
    return [passage for passage in record["context"] if passage[0] in titles]


def _from_hub(record: Record) -> bool:
    """The Hub copy keeps lists inside dicts, {title: [...], sentences: [...]}, and calls the id "id"."""
    return isinstance(record.get("context"), Mapping)


def _fields(record: Record) -> Sequence[str]:
    if _from_hub(record):
        return ("id", "question", "answer", "context.title", "context.sentences")
    return ("_id", "question", "answer", "context")


def _raw(record: Record) -> Record:
    """The record in the schema of the official files."""
    if not _from_hub(record):
        return record
    context, facts = record["context"], record.get("supporting_facts")
    raw = {**record, "_id": record["id"], "context": _pairs(context["title"], context["sentences"])}
    return raw | ({"supporting_facts": _pairs(facts["title"], facts["sent_id"])} if facts else {})


def _pairs(titles: Sequence[str], others: Sequence[Any]) -> list[list[Any]]:
    return [list(pair) for pair in zip(titles, others, strict=True)]


HOTPOTQA = make_hotpotqa_task()
