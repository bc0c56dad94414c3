"""MuSiQue, answerable questions: two to four hops over twenty passages."""

from collections.abc import Iterable

from qredit.tasks.base import Example, Record, Split, Style, Task
from qredit.tasks.files import SplitLayout, read_table, take_half
from qredit.tasks.prompt_text import MULTI_HOP, build_prompt, format_passage

_DEV = ("musique_ans_v1.0_dev.jsonl",)
LAYOUT = SplitLayout(
    files={"train": ("musique_ans_v1.0_train.jsonl",), "validation": _DEV, "test": _DEV},
    hub={"train": "train", "validation": "validation", "test": "validation"},
)
_FIELDS = ("id", "question", "answer", "answer_aliases", "paragraphs")


def read(source: str | None, split: Split) -> Iterable[Record]:
    """Records in the schema of the official files; those marked unanswerable (in the Full files) are left out.

    The official test labels are hidden: validation and test are the halves of the official dev set; see `take_half`.
    """
    table = read_table(source, split, LAYOUT)
    records = [record for _, record in table.iter_records(lambda record: _FIELDS) if record.get("answerable", True)]
    return records if split == "train" else take_half(records, split, "id")


def render(record: Record, style: Style) -> Example:
    """The passages, one per line, then the question.

    Args:
        record: id, question, answer, answer_aliases, and paragraphs, a list of {title, paragraph_text, …}.
    """
    passages = [format_passage(paragraph["title"], paragraph["paragraph_text"]) for paragraph in record["paragraphs"]]
    return Example(
        prompt=build_prompt(style, MULTI_HOP, record["question"], passages),
        answer=record["answer"],
        id=record["id"],
        aliases=tuple(record["answer_aliases"]),
    )


MUSIQUE = Task(
    name="musique",
    summary="MuSiQue (arXiv 2108.00573), answerable: two to four hops over twenty passages",
    read=read,
    render=render,
    metrics=("substring", "exact_match", "normalized_exact_match", "f1"),
    default_data="dgslibisey/MuSiQue",
    sizes={"train": 9985, "validation": 579, "test": 445},
)
