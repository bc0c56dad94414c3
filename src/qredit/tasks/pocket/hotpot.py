"""pocket-hotpot: two hops over six shuffled facts, in the schema of HotPotQA."""

import random
from typing import Any

from qredit.tasks.base import Example, Record, Split, Style
from qredit.tasks.pocket.chains import Context, Fact, draw_context
from qredit.tasks.pocket.scene import Scene, SceneDraw, Statement, build_pocket_prompt, make_pocket_task, make_record_id

INSTRUCTION = "Use the facts. Answer with the name alone."


def make_draw(name: str, chains: int) -> SceneDraw:
    """Scenes of `chains` persons, each of whose countries can be asked for; `name` begins the records' ids."""

    def draw(rng: random.Random, split: Split) -> Scene:
        context = draw_context(rng, split, chains, hops=2)
        return Scene(
            records=tuple(_record(name, context, chain) for chain in context.chains),
            statements=tuple(Statement(fact.sentence, fact.object) for fact in context.told),
        )

    return draw


def render(record: Record, style: Style) -> Example:
    """The facts, one per line, then the question. The rationale is the supporting facts in their order.

    Args:
        record: _id, question, answer, supporting_facts and context, as in the official files.
    """
    sentences = dict(record["context"])
    return Example(
        prompt=build_pocket_prompt(style, INSTRUCTION, map("".join, sentences.values()), record["question"]),
        answer=record["answer"],
        id=record["_id"],
        rationale=" ".join(sentences[title][number] for title, number in record["supporting_facts"]),
    )


POCKET_HOTPOT = make_pocket_task(
    name="pocket-hotpot",
    summary="generated: the country of a person, two hops over six facts (HotPotQA's schema)",
    draw=make_draw("pocket-hotpot", chains=3),
    render=render,
    metrics=("exact_match", "f1"),
)


def _record(name: str, context: Context, chain: tuple[Fact, ...]) -> dict[str, Any]:
    question = f"Which country does {chain[0].subject} live in?"
    return {
        "_id": make_record_id(name, (*(fact.sentence for fact in context.told), question)),
        "question": question,
        "answer": chain[-1].object,
        "supporting_facts": [[fact.subject, 0] for fact in chain],
        "context": [[fact.subject, [fact.sentence]] for fact in context.told],
        "type": "bridge",
        "level": "easy",
    }
