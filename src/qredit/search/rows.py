"""What a search leaves: the rationales of a prompt, ranked, with a value and a label for each step."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qredit.checks.protocol import Verdict, score_verdict
from qredit.search.tree import Node

_ROUNDING = 1e-9
"""Sums of simulations that cancel each other are 0 up to this."""


@dataclass(frozen=True)
class CheckedStep:
    """A step of a sampled rationale.

    Attributes:
        ids: its tokens.
        text: without white space around it.
        verdict: what the check said of it.
    """

    ids: tuple[int, ...]
    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Rationale:
    """A rationale that a search came to, with the answer behind it.

    Attributes:
        steps: in order, one at least.
        text: all of it.
        answer: the sampled answer.
        right: what the reward says of that.
    """

    steps: tuple[CheckedStep, ...]
    text: str
    answer: str
    right: bool


def value_steps(root: Node, steps: Sequence[CheckedStep]) -> tuple[list[float], int]:
    """The value of each step, and how many of the steps are nodes of the tree.

    A node has what was backed up to it, a step behind the nodes its verdict: 1, -1 or 0.

    Args:
        root: of the tree.
        steps: of a rationale.
    """
    values: list[float] = []
    node: Node | None = root
    nodes = 0
    for step in steps:
        node = None if node is None else node.children.get(step.ids)
        nodes += node is not None
        values.append(score_verdict(step.verdict) if node is None else node.value)
    return values, nodes


def label_steps(values: Sequence[float], verdicts: Sequence[Verdict], right: bool) -> list[bool]:
    """Whether each step is good (its value is above 0), up to the first step that cannot be labelled.

    No label, for this step and all behind it, where the value is 0; where it is above 0 though the check calls the step
    wrong; and, in a rationale with a wrong answer, where it is above 0 behind a step that is not good.

    Args:
        values: of the steps.
        verdicts: of the same.
        right: whether the answer was.

    Source: the released code of GroundedPRM, `construct.py`. Difference: there a rationale with a step of the first two
    kinds is left out as a whole, and a step that a tool said nothing of counts as the second kind.
    """
    labels: list[bool] = []
    for value, verdict in zip(values, verdicts, strict=True):
        good = value > 0
        contradicted = good and (verdict is False or (not right and False in labels))
        if abs(value) < _ROUNDING or contradicted:
            break
        labels.append(good)
    return labels


def make_rows(id: str, question: str, root: Node, found: Sequence[Rationale]) -> list[dict[str, Any]]:
    """The rows of a prompt, the best rationale first: what stepwise supervision reads, and what it was made of.

    Rationales of equal tokens with equally right answers are one. They are ranked by the mean value of their steps that
    are nodes of the tree, earlier found first in ties.

    Args:
        id: of the example.
        question: its prompt as text.
        root: of its tree.
        found: its rationales, in the order in which they were found.

    Source: of the ranking, the released code of GroundedPRM, `find_best_path`, which counts the root, too.
    """
    distinct: dict[Any, Rationale] = {}
    for one in found:
        distinct.setdefault((tuple(step.ids for step in one.steps), one.right), one)
    rows: list[dict[str, Any]] = []
    for one in distinct.values():
        values, nodes = value_steps(root, one.steps)
        verdicts = [step.verdict for step in one.steps]
        labels = label_steps(values, verdicts, one.right)
        rows.append(
            {
                "id": id,
                "prompt": question,
                "completions": [step.text for step in one.steps[: len(labels)]],
                "labels": labels,
                "values": values,
                "verdicts": verdicts,
                "rationale": one.text,
                "answer": one.answer,
                "right": one.right,
                "score": statistics.fmean(values[:nodes]),
            }
        )
    rows.sort(key=lambda row: -row["score"])
    return [row | {"rank": rank} for rank, row in enumerate(rows, start=1)]
