"""What the samples of an evaluation say in words: a few of them, and what stands in the way where none is right."""

import re
from collections.abc import Sequence

from qredit.evaluation.metrics import QuestionResult
from qredit.tasks.normal_forms import normalize_text
from qredit.utils.sanitize import to_one_line

MIN_SHARE = 0.1  # success below this, and a gold answer in at least this share of the texts, is worth a word
_SHOWN = 160


def format_samples(answered: Sequence[QuestionResult], primary: str, most: int = 3) -> list[str]:
    """The first sample of the first questions, on a line each: its thinking, its answer, the gold one, the reward.

    Args:
        answered: sampled answers of each question with their rewards.
        primary: name of the reward that decides on success.
        most: questions that are shown.
    """
    lines = []
    for question in answered[:most]:
        score = question.scores[primary][0]
        told = "not scored" if score is None else f"{score:g}"
        gold = "" if question.answer is None else f"gold {_short(question.answer)!r}, "
        lines.append(
            f"{_short(question.id, 40)}: thought {_short(question.rationales[0])!r}, answered "
            f"{_short(question.predictions[0])!r}, {gold}{primary} {told}"
        )
    return lines


def suggest_fixes(answered: Sequence[QuestionResult], primary: str) -> list[str]:
    """Where hardly a sample is right although the gold answer was written: where it is, and what to try."""
    pairs = [
        (question, rationale, said)
        for question in answered
        for rationale, said in zip(question.rationales, question.predictions, strict=True)
    ]
    scores = [score for question in answered for score in question.scores[primary]]
    right = sum(score is not None and score >= 1.0 for score in scores)
    thought = sum(_holds(rationale, question.answer) for question, rationale, _ in pairs)
    answers = sum(_holds(said, question.answer) for question, _, said in pairs)
    count = len(pairs)
    if right >= MIN_SHARE * count:
        return []
    if answers >= MIN_SHARE * count and answers > 2 * right:
        return [
            f"the gold answer is inside {_percent(answers, count)} of the answers, but {primary} counts "
            f"{_percent(right, count) if right else 'none'} of them: ask for the answer alone (--instruction), or "
            "count by another scorer (--metric substring)"
        ]
    if thought >= MIN_SHARE * count and thought > 2 * answers:
        forced = sum(question.forced for question in answered)
        cut = f"; {_percent(forced, count)} of the rationales were closed by force" if forced else ""
        where = f"in {_percent(answers, count)} of the answers" if answers else "in no answer"
        return [
            f"the gold answer is in {_percent(thought, count)} of the rationales and {where}{cut}: the model knows it "
            "and does not repeat it behind the closing. Ask for a final answer (--instruction or --system-prompt), "
            "leave more room (--max-completion-length), or give the closing that it knows (--thinking-closing)"
        ]
    return []


def _holds(text: str, gold: str | None) -> bool:
    """Whether there is a gold answer, and it is in the text as a word of its own, in any case."""
    if gold is None:
        return False
    wanted, there = normalize_text(gold).casefold(), normalize_text(text).casefold()
    start = r"(?<!\w)(?<!\d[.,])" if wanted[:1].isalnum() else ""
    end = r"(?!\w)(?![.,]\d)" if wanted[-1:].isalnum() else ""
    return bool(wanted) and re.search(start + re.escape(wanted) + end, there) is not None


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _short(text: str, most: int = _SHOWN) -> str:
    """On one line, its middle left out where it is long."""
    line = to_one_line(text.strip())
    half = (most - 3) // 2
    return line if len(line) <= most else f"{line[:half]} … {line[-half:]}"
