"""GSM8K: word problems of primary-school arithmetic."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from qredit.tasks.base import Example, Record, Split, Style, Task, hash_id
from qredit.tasks.files import SplitLayout, read_table, split_by_hash
from qredit.tasks.prompt_text import Wording, build_prompt

LAYOUT = SplitLayout(
    files={"train": ("train.jsonl",), "validation": ("train.jsonl",), "test": ("test.jsonl",)},
    hub={"train": "train", "validation": "train", "test": "test"},
)
WORDING = Wording(
    task="Solve this word problem.",
    answer="Think step by step. Then give the final answer alone, as one number without its unit.",
)
VALIDATION_SHARE = 0.05
_MARK = "#### "


def read(source: str | None, split: Split) -> Iterable[Record]:
    """Records with question and answer, and the id we give them, a hash of the question: GSM8K has none.

    A question that comes with several final numbers has the number in its hash, too. There is no official validation
    set: ours is the first 5 % of the questions of train in hash order, and train is the rest.
    """
    table = read_table(source, split, LAYOUT)
    records = []
    for number, record in table.iter_records(lambda record: ("question", "answer")):
        if _MARK not in record["answer"]:
            raise table.error(number, f"no '{_MARK.strip()}' before the final number in field 'answer'")
        records.append({**record, "id": hash_id(record["question"])[:16]})
    if split != "test":
        head, tail = split_by_hash(records, "id", lambda questions: round(VALIDATION_SHARE * questions))
        records = head if split == "validation" else tail
    return _told_apart(records)


def _told_apart(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with ids that differ where the same question has another final number."""
    finals: dict[str, set[str]] = defaultdict(set)
    for record in records:
        finals[record["id"]].add(_final(record))
    several = {id for id, found in finals.items() if len(found) > 1}
    return [
        {**record, "id": hash_id(f"{record['question']}\n{_final(record)}")[:16]} if record["id"] in several else record
        for record in records
    ]


def render(record: Record, style: Style) -> Example:
    """The question. The answer is the number after '#### ', without thousands commas."""
    return Example(prompt=build_prompt(style, WORDING, record["question"]), answer=_final(record), id=record["id"])


def _final(record: Record) -> str:
    return str(record["answer"].rpartition(_MARK)[2].strip().replace(",", ""))


GSM8K = Task(
    name="gsm8k",
    summary="GSM8K (arXiv 2110.14168): arithmetic word problems",
    read=read,
    render=render,
    reward="numeric",
    metrics=("exact_match", "numeric", "last_number"),
    default_data="openai/gsm8k:main",
)
