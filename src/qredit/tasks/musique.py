"""MuSiQue, answerable questions: two to four hops over twenty passages."""

from collections.abc import Iterable
from typing import Any

from qredit.tasks.base import Example, Passages, Record, Split, Style, Task
from qredit.tasks.files import SplitLayout, read_table, take_half
from qredit.tasks.prompt_text import MULTI_HOP, build_prompt, format_passage

_DEV = ("musique_ans_v1.0_dev.jsonl",)
LAYOUT = SplitLayout(
    files={"train": ("musique_ans_v1.0_train.jsonl",), "validation": _DEV, "test": _DEV},
    hub={"train": "train", "validation": "validation", "test": "validation"},
)
_FIELDS = ("id", "question", "answer", "answer_aliases", "paragraphs")


def make_musique_task(passages: Passages = "all") -> Task:
    """The task whose prompts are the passages, one per line, then the question; unanswerable questions are left out.

    The official test labels are hidden: validation and test are the halves of the official dev set; see `take_half`.

    Args:
        passages: "all" is the published setting; "supporting" shows the two to four passages that the answer rests
            on, by is_supporting; "none" asks the question alone.
    """

    def read(source: str | None, split: Split) -> Iterable[Record]:
        table = read_table(source, split, LAYOUT)
        records = []
        for number, record in table.iter_records(lambda record: _FIELDS):
            if record.get("answerable", True):
                records.append(record)
                if passages == "supporting" and not _select(record, passages):
                    raise table.error(number, "none of the 'paragraphs' is marked by 'is_supporting'")
        return records if split == "train" else take_half(records, split, "id")

    def render(record: Record, style: Style) -> Example:
        shown = [format_passage(part["title"], part["paragraph_text"]) for part in _select(record, passages)]
        return Example(
            prompt=build_prompt(style, MULTI_HOP[passages], record["question"], shown),
            answer=record["answer"],
            id=record["id"],
            aliases=tuple(record["answer_aliases"]),
        )

    return Task(
        name="musique",
        summary="MuSiQue (arXiv 2108.00573), answerable: two to four hops over twenty passages",
        read=read,
        render=render,
        metrics=("substring", "exact_match", "normalized_exact_match", "f1"),
        default_data="dgslibisey/MuSiQue",
        sizes={"train": 9985, "validation": 579, "test": 445},
        with_passages=make_musique_task,
    )


def _select(record: Record, passages: Passages) -> list[Any]:
    """The paragraphs that are shown."""
    if passages == "none":
        return []
    return [part for part in record["paragraphs"] if passages == "all" or part.get("is_supporting")]


MUSIQUE = make_musique_task()
