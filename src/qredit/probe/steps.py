"""What the steps of sampled rationales do to the gold answer: its entropy after each, of right and wrong rollouts."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from qredit.engine.answer_after_steps import StepTrack, score_answer_after_steps
from qredit.probe.measure import ProbeSetup, score_rows
from qredit.rewards.judge.steps import STEPS
from qredit.rollouts.collate import Rows
from qredit.rollouts.trajectory import Trajectory
from qredit.stats.interval import Interval, normal_interval

PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHOWN = 8  # steps whose first token's entropy is told


@dataclass(frozen=True)
class StepSummary:
    """The tracks of some rollouts.

    Attributes:
        name: which ones.
        rollouts: how many.
        steps: their mean number of steps.
        along: mean h at 0, 1/4, 1/2, 3/4 and all of the steps, nats a token of the answer; between two steps on a line.
        utility: h_0 - h_K, the mean.
        falling: share of steps that lower h.
        first: mean entropy of the first token of step 1, 2, …, over the rollouts that have it.
    """

    name: str
    rollouts: int
    steps: float
    along: tuple[float, ...]
    utility: Interval
    falling: float
    first: tuple[float, ...]


def track_steps(subject: ProbeSetup, rollouts: Sequence[Trajectory], ends: str) -> list[StepTrack]:
    """The track of each rollout of a probe.

    Args:
        subject: model and format.
        rollouts: of one turn, with the ids of their right answers.
        ends: what ends a step, a name in `STEPS`.

    Raises:
        QreditError: a head that cannot score tokens.
    """
    tokenizer = subject.tokens.tokenizer
    return score_answer_after_steps(
        rollouts,
        [STEPS[ends](one.rationale_ids, tokenizer) for one in rollouts],
        subject.tokens.close_ids,
        int(tokenizer.pad_token_id),  # type: ignore[attr-defined]
        _Entropies(subject.network),
        subject.network.device,
    )


@dataclass(frozen=True)
class _Entropies:
    network: PreTrainedModel

    def __call__(self, rows: Rows, only: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return score_rows(self.network, rows, only, "entropy")


def summarize_tracks(tracks: Sequence[StepTrack], right: Sequence[bool]) -> list[StepSummary]:
    """The tracks of right and of wrong rollouts; without those that there are none of, and without empty rationales.

    Args:
        tracks: of each rollout.
        right: whether its sampled answer is right.
    """
    found = []
    for name, wanted in (("right", True), ("wrong", False)):
        own = [one for one, is_right in zip(tracks, right, strict=True) if is_right is wanted and one.first]
        if own:
            found.append(_summarize(name, own))
    return found


def _summarize(name: str, own: Sequence[StepTrack]) -> StepSummary:
    gains = [gain for one in own for gain in one.gains]
    columns = [[one.first[k] for one in own if len(one.first) > k] for k in range(_SHOWN)]
    return StepSummary(
        name,
        len(own),
        statistics.fmean(len(one.first) for one in own),
        tuple(statistics.fmean(interpolate(one.entropies, place) for one in own) for place in PLACES),
        normal_interval([one.utility for one in own]),
        sum(gain > 0 for gain in gains) / len(gains),
        tuple(statistics.fmean(column) for column in columns if column),
    )


def interpolate(values: Sequence[float], place: float) -> float:
    """The value at a share of the way from the first to the last, on a line between neighbours.

    Args:
        values: at least one.
        place: 0 … 1.
    """
    at = place * (len(values) - 1)
    before = min(int(at), len(values) - 1)
    after = min(before + 1, len(values) - 1)
    return values[before] + (at - before) * (values[after] - values[before])
