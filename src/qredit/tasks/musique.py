"""MuSiQue, answerable questions: two to four hops over twenty passages."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qredit.tasks.base import PLACE_KEY, Example, Passages, Record, Split, Style, Task
from qredit.tasks.files import SplitLayout, read_table, take_half
from qredit.tasks.prompt_text import MULTI_HOP, SINGLE_HOP, build_prompt, format_passage
from qredit.utils.errors import QreditError

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
                if fault := _find_fault(record):
                    raise table.error(number, fault)
                records.append(record)
                if passages == "supporting" and not _select(record, passages):
                    raise table.error(number, "none of the 'paragraphs' is marked by 'is_supporting'")
        return records if split == "train" else take_half(records, split, "id")

    def render(record: Record, style: Style) -> Example:
        shown = [format_passage(part["title"], part["paragraph_text"]) for part in _select(record, passages)]
        wording = SINGLE_HOP if len(_list_hops(record)) == 1 else MULTI_HOP
        return Example(
            prompt=build_prompt(style, wording[passages], record["question"], shown),
            answer=record["answer"],
            id=record["id"],
            aliases=tuple(record["answer_aliases"]),
        )

    def decompose(record: Record) -> list[Record]:
        hops = decompose_record(record)
        if passages == "supporting":
            _check_passages(record, hops)
        return hops

    return Task(
        name="musique",
        summary="MuSiQue (arXiv 2108.00573), answerable: two to four hops over twenty passages",
        read=read,
        render=render,
        metrics=("substring", "exact_match", "normalized_exact_match", "f1"),
        default_data="dgslibisey/MuSiQue",
        sizes={"train": 9985, "validation": 579, "test": 445},
        with_passages=make_musique_task,
        decompose=decompose,
    )


def decompose_record(record: Record) -> list[Record]:
    """The record's own sub-questions as records; none where it has none, or one without a question and an answer.

    In each the answers of earlier ones stand in the place of #1, #2, …; any other number behind # is left. It has all
    passages, and rests on the one that it is marked with; where it is marked with none, on those of the question.

    Args:
        record: of MuSiQue's schema, with `question_decomposition`.
    """
    hops = _list_hops(record)
    if not all(isinstance(hop, Mapping) and hop.get("question") and hop.get("answer") for hop in hops):
        return []
    answers = [str(hop["answer"]) for hop in hops]
    return [_make_hop(record, number, hop, answers) for number, hop in enumerate(hops)]


def _make_hop(record: Record, number: int, hop: Mapping[str, Any], answers: Sequence[str]) -> Record:
    support = hop.get("paragraph_support_idx")
    marked = [{**part, "is_supporting": part.get("idx") == support} for part in record["paragraphs"]]
    return {
        **record,
        "id": f"{record['id']}:{number + 1}",
        "question": fill_references(str(hop["question"]), answers[:number]),
        "answer": answers[number],
        "answer_aliases": record["answer_aliases"] if answers[number] == record["answer"] else [],
        "paragraphs": record["paragraphs"] if support is None else marked,
        "question_decomposition": [hop],
    }


def _list_hops(record: Record) -> list[Any]:
    hops = record.get("question_decomposition")
    return hops if isinstance(hops, list) else []


def _check_passages(record: Record, hops: Sequence[Record]) -> None:
    """Refuse a sub-question that would be asked without the passage that answers it."""
    for number, hop in enumerate(hops, 1):
        if not _select(hop, "supporting"):
            support = _list_hops(hop)[0].get("paragraph_support_idx")
            place = record.get(PLACE_KEY, record["id"])
            raise QreditError(
                f"{place}: 'paragraph_support_idx' of sub-question {number}, {support!r}, is the 'idx' of none of the "
                "'paragraphs'"
            )


def fill_references(question: str, answers: Sequence[str]) -> str:
    """A sub-question with the n-th of the answers in the place of #n; an n that has none is left.

    Args:
        question: such as "Who was the first president of #1 ?".
        answers: to the sub-questions before it.
    """
    known = {str(number): answer for number, answer in enumerate(answers, 1)}
    return re.sub(r"#(\d+)", lambda found: known.get(found[1], found[0]), question)


def _find_fault(record: Record) -> str | None:
    """What is of another type than in the official files, in words; None where nothing is."""
    for name in ("id", "question", "answer"):
        if not isinstance(record[name], str):
            return f"field '{name}' must be text, not {type(record[name]).__name__}"
    aliases, paragraphs = record["answer_aliases"], record["paragraphs"]
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        return "field 'answer_aliases' must be a list of texts"
    if not isinstance(paragraphs, list) or not all(_is_paragraph(part) for part in paragraphs):
        return "field 'paragraphs' must be a list of objects, each with 'title' and 'paragraph_text', both text"
    return None


def _is_paragraph(part: Any) -> bool:
    return isinstance(part, Mapping) and all(isinstance(part.get(name), str) for name in ("title", "paragraph_text"))


def _select(record: Record, passages: Passages) -> list[Any]:
    """The paragraphs that are shown."""
    if passages == "none":
        return []
    return [part for part in record["paragraphs"] if passages == "all" or part.get("is_supporting")]


MUSIQUE = make_musique_task()
