"""Evaluation by sampling: p@1, unbiased p@k, maj@k, means of any scorer; intervals by bootstrap over questions."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from qredit.device import autocast
from qredit.errors import QreditError
from qredit.interval import mean_interval
from qredit.plain import json_line
from qredit.prefix.share import share_prefix
from qredit.rewards import Scorer
from qredit.rewards import get as scorer_named
from qredit.rollout.format import TokenFormat
from qredit.rollout.sample import Budget, Draw, sample
from qredit.seed import mix
from qredit.tasks import Example


@dataclass(frozen=True)
class Estimate:
    """A mean over questions and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Answered:
    """What a model said to one question.

    Attributes:
        predictions: its k sampled answers.
        rationales: what it thought before each.
        scores: for each scorer, one number per prediction.
        ended: how many of them ended by themselves, and not at the answer budget.
    """

    id: str
    answer: str
    predictions: tuple[str, ...]
    rationales: tuple[str, ...]
    scores: Mapping[str, tuple[float, ...]]
    ended: int = 0


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that k of the samples, drawn without replacement, hold a correct one: 1 - C(n-c, k)/C(n, k).

    Unbiased for pass@k (arXiv 2107.03374, eq. 1). Needs k ≤ n.
    """
    if not 1 <= k <= samples:
        raise QreditError(f"p@{k} needs at least {k} samples per question, got {samples}")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority(predictions: Sequence[str], scores: Sequence[float], scorer: Scorer) -> float:
    """The score of the most frequent answer; a tie counts its expectation, the mean over the tied answers.

    What is one answer is up to the scorer (`Scorer.grouped`). A blank answer does not vote; all blank is 0. The score
    of an answer is that of its first occurrence.
    """
    if len(predictions) != len(scores):
        raise ValueError(f"{len(predictions)} predictions and {len(scores)} scores")
    votes = scorer.grouped(predictions)
    most = max(map(len, votes), default=0)
    winners = [scores[group[0]] for group in votes if len(group) == most]
    return sum(winners) / len(winners) if winners else 0.0


def bootstrap(values: Sequence[float], resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean and its 95 % interval over questions: `mean_interval`, exact where all of them have the same value."""
    if not values:
        raise QreditError("nothing to average: there are no questions")
    low, high = mean_interval(values, resamples=resamples, seed=seed)
    return Estimate(float(torch.tensor(values, dtype=torch.float64).mean()), low, high)


def summary(answered: Sequence[Answered], primary: str, k: int) -> dict[str, Estimate]:
    """p@1, p@k and m@k by the primary scorer, of which 1 is a success; then every scorer's mean over all samples."""

    def per_question(value: Callable[[Answered], float]) -> Estimate:
        return bootstrap([value(question) for question in answered])

    def right(question: Answered) -> list[float]:
        return [float(score >= 1.0) for score in question.scores[primary]]

    def successes(question: Answered) -> int:
        return int(sum(right(question)))

    found = {
        "p@1": per_question(lambda question: successes(question) / len(question.predictions)),
        f"p@{k}": per_question(lambda question: pass_at_k(len(question.predictions), successes(question), k)),
        f"m@{k}": per_question(lambda question: majority(question.predictions, right(question), scorer_named(primary))),
    }
    for name in answered[0].scores:
        found[name] = per_question(lambda question, name=name: _mean(question.scores[name]))  # type: ignore[misc]
    return found


def answer_all(
    model: PreTrainedModel,
    format: TokenFormat,
    examples: Sequence[Example],
    scorers: Sequence[str],
    budget: Budget,
    k: int,
    *,
    seed: int,
    stop_tokens: Sequence[int],
    pad: int,
    draw: Draw = Draw(),
    rows_per_batch: int = 256,
    template: Mapping[str, object] | None = None,
    half: bool = False,
) -> Iterator[Answered]:
    """Sample k answers to every question and score them, yielding each question as it is done.

    Draws are a function of (seed, batch) and of the kind of device; questions are taken in order, `rows_per_batch // k`
    at a time. `half` computes in bf16.
    """
    judges = {name: scorer_named(name) for name in scorers}
    share_prefix(model)
    size = max(rows_per_batch // k, 1)
    for start in range(0, len(examples), size):
        batch = examples[start : start + size]
        prompts = [format.prompt_ids(example.prompt, **(template or {})) for example in batch]
        rows = [prompt for prompt in prompts for _ in range(k)]
        with autocast(model.device, half):
            rollouts = sample(
                model, rows, format, budget, draw=draw, stop_tokens=stop_tokens, pad=pad, seed=mix(seed, start)
            )
        for number, example in enumerate(batch):
            mine = rollouts[number * k : (number + 1) * k]
            said = tuple(format.response_text(rollout.answer_ids) for rollout in mine)
            golds = (example.answer, *example.aliases)
            yield Answered(
                id=example.id,
                answer=example.answer,
                predictions=said,
                rationales=tuple(format.text(rollout.ids[: rollout.close_start]) for rollout in mine),
                scores={name: tuple(judge(text, golds) for text in said) for name, judge in judges.items()},
                ended=sum(rollout.ended for rollout in mine),
            )


def write_samples(path: Path, answered: Iterable[Answered]) -> None:
    """One JSON line per question: predictions, rationales and scores, each written as it comes.

    Raises FileExistsError: nothing is overwritten.
    """
    with path.open("x", encoding="utf-8") as file:
        for question in answered:
            file.write(json_line(asdict(question)))
            file.flush()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
