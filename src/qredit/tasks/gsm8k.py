"""GSM8K: word problems of primary-school arithmetic."""

from collections.abc import Iterable

from qredit.tasks.base import Example, Record, Split, Style, Task, hash_of
from qredit.tasks.files import Layout, by_hash, read_table
from qredit.tasks.prompt import Wording, prompt

LAYOUT = Layout(
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

    There is no official validation set: ours is the first 5 % of train in hash order, and train is the rest.
    """
    table = read_table(source, split, LAYOUT)
    records = []
    for number, record in table.checked(lambda record: ("question", "answer")):
        if _MARK not in record["answer"]:
            raise table.error(number, f"no '{_MARK.strip()}' before the final number in field 'answer'")
        records.append({**record, "id": hash_of(record["question"])[:16]})
    if split == "test":
        return records
    ordered = by_hash(records, "id")
    cut = round(VALIDATION_SHARE * len(ordered))
    return ordered[:cut] if split == "validation" else ordered[cut:]


def render(record: Record, style: Style) -> Example:
    """The question. The answer is the number after '#### ', without thousands commas."""
    final = record["answer"].rpartition(_MARK)[2].strip().replace(",", "")
    return Example(prompt=prompt(style, WORDING, record["question"]), answer=final, id=record["id"])


GSM8K = Task(
    name="gsm8k",
    summary="GSM8K (arXiv 2110.14168): arithmetic word problems",
    read=read,
    render=render,
    reward="numeric",
    metrics=("numeric", "exact_match"),
    default_data="openai/gsm8k:main",
)
