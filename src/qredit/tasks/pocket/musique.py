"""pocket-musique: three hops over six shuffled facts, in the schema of MuSiQue."""

import random
from typing import Any

from qredit.tasks.base import Example, Record, Split, Style
from qredit.tasks.musique import decompose_record
from qredit.tasks.pocket.chains import Context, Fact, draw_context
from qredit.tasks.pocket.scene import Scene, Statement, build_pocket_prompt, make_pocket_task, make_record_id

NAME = "pocket-musique"
INSTRUCTION = "Use the facts. Answer with the name alone."
CHAINS, HOPS = 2, 3


def draw(rng: random.Random, split: Split) -> Scene:
    """A scene of `CHAINS` persons, each of whose leagues can be asked for."""
    context = draw_context(rng, split, CHAINS, HOPS)
    return Scene(
        records=tuple(_record(context, chain) for chain in context.chains),
        statements=tuple(Statement(fact.sentence, fact.object) for fact in context.told),
    )


def render(record: Record, style: Style) -> Example:
    """The paragraphs, one per line, then the question. The rationale is the supporting paragraphs in their order.

    Args:
        record: id, question, answer, answer_aliases, paragraphs and question_decomposition, as in the official files.
    """
    texts = {paragraph["idx"]: paragraph["paragraph_text"] for paragraph in record["paragraphs"]}
    return Example(
        prompt=build_pocket_prompt(style, INSTRUCTION, texts.values(), record["question"]),
        answer=record["answer"],
        id=record["id"],
        aliases=tuple(record["answer_aliases"]),
        rationale=" ".join(texts[hop["paragraph_support_idx"]] for hop in record["question_decomposition"]),
    )


POCKET_MUSIQUE = make_pocket_task(
    name=NAME,
    summary="generated: the league of a person's country, three hops over six facts (MuSiQue's schema)",
    draw=draw,
    render=render,
    metrics=("exact_match", "f1"),
    decompose=decompose_record,
)


def _record(context: Context, chain: tuple[Fact, ...]) -> dict[str, Any]:
    question = f"Which league does the country of {chain[0].subject} belong to?"
    id = make_record_id(NAME, (*(fact.sentence for fact in context.told), question))
    return {
        "id": id,
        "paragraphs": [_paragraph(number, fact, fact in chain) for number, fact in enumerate(context.told)],
        "question": question,
        "question_decomposition": [
            {
                "id": f"{id}-{hop}",
                "question": f"{fact.subject if hop == 0 else f'#{hop}'} >>{fact.relation.rstrip()}",
                "answer": fact.object,
                "paragraph_support_idx": context.told.index(fact),
            }
            for hop, fact in enumerate(chain)
        ],
        "answer": chain[-1].object,
        "answer_aliases": [],
        "answerable": True,
    }


def _paragraph(number: int, fact: Fact, supports: bool) -> dict[str, Any]:
    return {"idx": number, "title": fact.subject, "paragraph_text": fact.sentence, "is_supporting": supports}
