"""A few samples below an evaluation's table, and the words for gold answers that were written and did not count."""

import pytest

from qredit.evaluation.metrics import QuestionResult
from qredit.runs.eval_hints import format_samples, suggest_fixes


def question(gold, *pairs, scores=None, id="q", forced=0):
    thought, said = zip(*pairs, strict=True)
    return QuestionResult(id, gold, said, thought, {"exact_match": scores or (0.0,) * len(pairs)}, forced=forced)


def test_gold_answers_in_rationales_alone_are_told_with_advice():
    answered = [
        question("New Delhi", ("The capital of India is new delhi.", "Okay, so"), ("Paris, perhaps", "it"), forced=1),
        question("4", ("2 + 2 = 4", "the"), ("14", "the")),
    ]
    (said,) = suggest_fixes(answered, "exact_match")
    assert "in 50 % of the rationales and in no answer" in said
    assert "25 % of the rationales were closed by force" in said
    for advice in ("--instruction", "--system-prompt", "--max-completion-length", "--thinking-closing"):
        assert advice in said


def test_a_gold_answer_inside_the_answers_is_another_case():
    (said,) = suggest_fixes([question("4", ("so", "The answer is 4."), ("so", "4!"))], "exact_match")
    assert "inside 100 % of the answers, but exact_match counts none of them" in said
    assert "--instruction" in said


@pytest.mark.parametrize(
    "answered",
    [
        [question("4", ("it is 4", "4"), ("it is 5", "5"), scores=(1.0, 0.0))],  # success
        [question("4", ("it is 14 or 4.2", "7"), ("x = 24", "7"))],  # digits of other numbers
        [question("no", ("nothing is known", "now"), ("another", "nor"))],  # letters of other words
    ],
)
def test_nothing_is_said_where_there_is_nothing_to_say(answered):
    assert suggest_fixes(answered, "exact_match") == []


def test_samples_are_shown_on_line_each_shortened_and_harmless():
    bad = "first\nsecond \x1b[2J" + "x" * 1000 + " end"
    lines = format_samples(
        [question("4", (bad, bad), id=bad), *[question("4", ("so", "5"), scores=(None,))] * 9], "exact_match"
    )
    assert len(lines) == 3
    assert all("\n" not in line and "\x1b" not in line and len(line) < 700 for line in lines)
    assert "first second" in lines[0]
    assert lines[0].count("end") == 3
    assert lines[1] == "q: thought 'so', answered '5', gold '4', exact_match not scored"
