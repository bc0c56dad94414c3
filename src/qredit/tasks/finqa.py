"""FinQA: questions about a page of a company's report, with a table, that take a short calculation."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from qredit.tasks.base import Example, Record, Split, Style, Task
from qredit.tasks.files import SplitLayout, read_table
from qredit.tasks.prompt_text import Wording, build_prompt

LAYOUT = SplitLayout(
    files={"train": ("train.json",), "validation": ("dev.json",), "test": ("test.json",)},
    hub={"train": "train", "validation": "validation", "test": "test"},
)
WORDING = Wording(
    task="Here is part of a page from a company's financial report: text, a table and more text. Answer the question "
    "about it. It may take a calculation.",
    answer="Think step by step. Then give the final answer alone: one number, with a percent sign if it is a "
    "percentage, or yes or no.",
)
_PAGE = ("id", "pre_text", "table", "post_text")


def read(source: str | None, split: Split) -> Iterable[Record]:
    """Records in the schema of the official files.

    The Hub copy keeps the fields of "qa" beside the others; they are moved back. The unlabelled private test is
    refused, since it has no exe_ans.
    """
    for _, record in read_table(source, split, LAYOUT).iter_records(_fields):
        yield record if "qa" in record else {**record, "qa": record}


def render(record: Record, style: Style) -> Example:
    """The page, then the question. The answer is the annotated string, the executed one an alias; see `_answers`.

    Args:
        record: pre_text and post_text (lists of sentences), table (list of rows of cells), id, and qa with question,
            answer (the annotator's string, which may be empty) and exe_ans (the result of the program).
    """
    rows = [" | ".join(map(str, row)) for row in record["table"]]
    context = [" ".join(record["pre_text"]), *rows, " ".join(record["post_text"])]
    answer, *aliases = _answers(record["qa"])
    return Example(
        prompt=build_prompt(style, WORDING, record["qa"]["question"], [line for line in context if line.strip()]),
        answer=answer,
        id=record["id"],
        aliases=tuple(aliases),
    )


FINQA = Task(
    name="finqa",
    summary="FinQA (arXiv 2109.00122): numbers from a financial report",
    read=read,
    render=render,
    metrics=("substring", "exact_match", "numeric"),
    default_data="rootsautomation/FinQA",
    sizes={"train": 6145, "validation": 872, "test": 1132},
)


def _fields(record: Record) -> Sequence[str]:
    inside = "qa." if "qa" in record else ""
    return (*_PAGE, f"{inside}question", f"{inside}exe_ans")


def _answers(qa: Mapping[str, Any]) -> list[str]:
    """The annotated string if there is one, then the executed result unless it is the same."""
    answers = (str(qa.get("answer") or "").strip(), _plain(qa["exe_ans"]))
    return list(dict.fromkeys(filter(None, answers))) or [""]


def _plain(value: Any) -> str:
    """A number without exponent or trailing zeros: 380.0 is "380", 1e-05 is "0.00001". Other text as it is."""
    text = str(value).strip()
    try:
        digits = format(Decimal(text), "f")
    except InvalidOperation:
        return text
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
