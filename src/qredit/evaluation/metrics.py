"""What sampled answers say: p@1, unbiased p@k, maj@k, means of any scorer; intervals over questions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qredit.rewards import REGISTRY, Scorer
from qredit.stats.interval import Interval, difference_interval, mean_interval
from qredit.utils.errors import QreditError
from qredit.utils.former_names import former_names
from qredit.utils.sanitize import to_json_line


@dataclass(frozen=True)
class QuestionResult:
    """What a model said to one question.

    Attributes:
        answer: the gold one; None where the data has none.
        predictions: its k sampled answers.
        rationales: what it thought before each.
        scores: for each reward, one number per prediction; None where it gives none.
        ended: how many of them ended by themselves, and not at the answer budget.
        forced: how many rationales were closed by force.
        mean_logp: of each prediction, the mean log-probability of its sampled tokens, rationale included, in nats at
            the sampling temperature; None where none is known, and empty where nobody asked.
        answer_logp: of each, the log-probability of the answer given its rationale: a sum, likewise.
        tokens: that were sampled, of all of them together.
    """

    id: str
    answer: str | None
    predictions: tuple[str, ...]
    rationales: tuple[str, ...]
    scores: Mapping[str, tuple[float | None, ...]]
    ended: int = 0
    forced: int = 0
    mean_logp: tuple[float | None, ...] = ()
    answer_logp: tuple[float | None, ...] = ()
    tokens: int = 0


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that k of the samples, drawn without replacement, hold a correct one: 1 - C(n-c, k)/C(n, k).

    Unbiased for pass@k (arXiv 2107.03374, eq. 1). Needs k ≤ n.

    Args:
        samples: n, how many there are.
        correct: c, how many of them are right.
        k: samples of a set: the k of p@k and m@k.
    """
    if not 1 <= k <= samples:
        raise QreditError(f"p@{k} needs at least {k} samples per question, got {samples}")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def score_majority(predictions: Sequence[str], scores: Sequence[float], scorer: Scorer) -> float:
    """The score of the most frequent answer; a tie counts its expectation, the mean over the tied answers.

    What is one answer is up to the scorer (`Scorer.grouped`). A blank answer does not vote; all blank is 0. The
    score of an answer is that of its first occurrence.

    Args:
        predictions: sampled answers.
        scores: the score of each.
        scorer: says which answers are the same.
    """
    if len(predictions) != len(scores):
        raise ValueError(f"{len(predictions)} predictions and {len(scores)} scores")
    votes = scorer.grouped(predictions)
    most = max(map(len, votes), default=0)
    winners = [scores[group[0]] for group in votes if len(group) == most]
    return sum(winners) / len(winners) if winners else 0.0


def summarize(answered: Sequence[QuestionResult], primary: str, k: int) -> dict[str, Interval]:
    """p@1, p@k and m@k by the primary reward, of which 1 is a success; then the mean of each reward over all samples.

    Samples that a reward does not score are left out of its mean, and are no success.

    Args:
        answered: sampled answers of each question with their rewards.
        primary: name of the reward that decides on success.
        k: samples of a set: the k of p@k and m@k.
    """

    if not answered:
        raise QreditError("nothing to average: there are no questions")
    each = [compute_question_metrics(question, primary, k) for question in answered]
    found = {name: mean_interval([values[name] for values in each]) for name in each[0]}
    for name in answered[0].scores:
        means = [mean for question in answered if (mean := _mean(question.scores[name])) is not None]
        if means:
            found[name] = mean_interval(means)
    return found


def estimate_success(questions: Sequence[str], scores: Sequence[float | None]) -> Interval:
    """p@1 of samples that came in any order: a score of 1 or more is a success, none at all is not.

    Args:
        questions: which question each sample answers.
        scores: its score.
    """
    right: dict[str, list[float]] = {}
    for question, score in zip(questions, scores, strict=True):
        right.setdefault(question, []).append(_is_success(score))
    return mean_interval([sum(each) / len(each) for each in right.values()])


def list_successes(question: QuestionResult, primary: str) -> list[float]:
    """1 for each sample that the primary reward gives 1 or more, 0 for others and for those without a score."""
    return [_is_success(score) for score in question.scores[primary]]


def _is_success(score: float | None) -> float:
    return float(score is not None and score >= 1.0)


def get_voting_scorer(primary: str) -> Scorer:
    """Which answers are the same where samples vote.

    A function of the user's does not say so: with it answers vote as exact_match reads them.
    """
    return REGISTRY.get(primary, REGISTRY["exact_match"])


def compute_question_metrics(question: QuestionResult, primary: str, k: int) -> dict[str, float]:
    """p@1, p@k and m@k of one question by the primary reward, of which 1 or more is a success.

    Args:
        question: its sampled answers with their rewards.
        primary: name of the reward that decides on success.
        k: samples of a set: the k of p@k and m@k.
    """
    right = list_successes(question, primary)
    return {
        "p@1": sum(right) / len(right),
        f"p@{k}": pass_at_k(len(right), int(sum(right)), k),
        f"m@{k}": score_majority(question.predictions, right, get_voting_scorer(primary)),
    }


def compare_results(
    answered: Sequence[QuestionResult], others: Sequence[QuestionResult], primary: str, k: int
) -> tuple[dict[str, Interval], int]:
    """By how much the first model's p@1, p@k and m@k are above the second's, and on how many questions.

    Questions are paired by id and redrawn in pairs, so that how hard they are does not count. Only those that both
    answered are taken.

    Args:
        answered: of the first model.
        others: of the second model, to the same questions.
        primary: name of the reward that decides on success.
        k: samples of a set: the k of p@k and m@k.

    Raises:
        QreditError: there is none.
    """
    theirs = {question.id: question for question in others}
    pairs = [(question, theirs[question.id]) for question in answered if question.id in theirs]
    if not pairs:
        raise QreditError("nothing to compare: no question was answered by both models")
    each = [
        (compute_question_metrics(one, primary, k), compute_question_metrics(other, primary, k)) for one, other in pairs
    ]
    found = {}
    for name in each[0][0]:
        values = [one[name] - other[name] for one, other in each]
        found[name] = difference_interval(values)
    return found, len(pairs)


def write_samples(path: Path, answered: Iterable[QuestionResult]) -> None:
    """One JSON line per question: predictions, rationales and scores, each written as it comes.

    Raises FileExistsError: nothing is overwritten.
    """
    with path.open("x", encoding="utf-8") as file:
        for question in answered:
            file.write(to_json_line(asdict(question)))
            file.flush()


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of what was scored; None where nothing was."""
    scored = [value for value in values if value is not None]
    return sum(scored) / len(scored) if scored else None


__getattr__ = former_names(
    __name__,
    {
        "Answered": "QuestionResult",
        "majority": "score_majority",
        "summary": "summarize",
        "successes": "compute_question_metrics",
        "differences": "compare_results",
    },
)
