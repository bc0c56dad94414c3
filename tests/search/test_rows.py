"""What a search leaves: labels up to the first step that has none, and rationales by rank."""

import pytest

from qredit.search.rows import CheckedStep, Rationale, label_steps, make_rows
from qredit.search.tree import Node


@pytest.mark.parametrize(
    ("values", "verdicts", "right", "labels"),
    [
        ([1.2, 0.3], [True, None], True, [True, True]),
        ([1.2, 0.0, 1.0], [True, None, True], True, [True]),
        ([1.2, 0.4, 1.0], [True, False, True], True, [True]),
        ([1.2, -0.4, 1.0], [True, True, True], True, [True, False, True]),
        ([1.2, -0.4, -1.0, 1.0], [True, False, False, True], False, [True, False, False]),
        ([0.4], [False], True, []),
        ([1.2, 0.1 + 0.2 - 0.3], [True, None], True, [True]),
    ],
)
def test_labels_end_where_nothing_can_be_said(values, verdicts, right, labels):
    assert label_steps(values, verdicts, right) == labels


def step(name, verdict=None):
    return CheckedStep((name,), f"step {name}", verdict)


def rationale(*steps, right, answer="4"):
    return Rationale(steps, " ".join(one.text for one in steps), answer, right)


def tree():
    root = Node(expanded=True)
    root.children = {(1,): Node((1,), "step 1", root, True, value=1.5), (2,): Node((2,), "step 2", root, value=-0.5)}
    return root


def test_nodes_have_their_value_and_further_steps_their_verdict():
    (row,) = make_rows("a", "What?", tree(), [rationale(step(1, True), step(7, True), step(8), right=True)])
    assert row == {
        "id": "a", "prompt": "What?", "completions": ["step 1", "step 7"], "labels": [True, True],
        "values": [1.5, 1.0, 0.0], "verdicts": [True, True, None], "rationale": "step 1 step 7 step 8",
        "answer": "4", "right": True, "score": 1.5, "rank": 1,
    }  # fmt: skip


def test_rationales_are_ranked_and_equal_ones_are_one():
    found = [
        rationale(step(2), right=False, answer="5"),
        rationale(step(1, True), step(7, False), right=False, answer="6"),
        rationale(step(1, True), step(7, False), right=True),
        rationale(step(2), right=False, answer="7"),
    ]
    rows = make_rows("a", "What?", tree(), found)
    told = [(row["rank"], row["answer"], row["score"], row["labels"]) for row in rows]
    assert told == [(1, "6", 1.5, [True, False]), (2, "4", 1.5, [True, False]), (3, "5", -0.5, [False])]
