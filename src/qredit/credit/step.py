"""Scores of reasoning steps: the worst one counts, softly or strictly.

`step` numbers the reasoning step of each token, -1 where there is none; `step_score` holds a step's score at its last
token. What the score field holds elsewhere is never read.
"""

from dataclasses import dataclass, replace

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.schedule import check_range
from qredit.credit.per_token import get_token_values, token_mean_of_others
from qredit.stats.masked import apply_mask
from qredit.stats.segment import Segments, suffix_min


def segment_steps(batch: RolloutBatch, wanted_by: str) -> Segments:
    """The reasoning steps of each row, over its sampled tokens."""
    return Segments.of(batch.require("step", wanted_by), batch.sampled)


@dataclass(frozen=True)
class step_scores(Source):
    """c_{i,t} = s_{i,n} on the last token of step n, 0 on all others. Every token of a row without a step gets 0.

    Of two rows that share a rationale that of the gold answer is kept out.
    """

    needs = frozenset({"step", "step_score"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        ends = segment_steps(batch, str(self)).last
        return Coefficient(
            apply_mask(batch.require("step_score", str(self)).double(), ends), keep=batch.drawn_rows[:, None]
        )


@dataclass(frozen=True)
class weight_worst_steps(Credit):
    """c_n ← w_n c_n on the last token of step n, w = softmax over the row's steps of -c_n / temperature.

    Σ_n w_n c_n tends to the least c_n as the temperature falls to 0; a step far above it is left with about 0. The
    temperature is in units of the score.
    """

    temperature: float
    needs = frozenset({"step"})

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 1e-6, 1e6)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, counts = get_token_values(coefficient, batch)
        ends = segment_steps(batch, str(self)).last & counts
        weight = torch.softmax(apply_mask(-value / self.temperature, ends, -torch.inf), 1)
        return replace(coefficient, value=apply_mask(weight * value, ends))


@dataclass(frozen=True)
class worst_to_come(Credit):
    """c_t ← the least c on the last token of this or any later step; 0 where no step ends any more.

    The minimum runs over step ends alone. Over every token it would also see the 0 of tokens inside a step, and a
    return would never be above 0.
    """

    needs = frozenset({"step"})

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, counts = get_token_values(coefficient, batch)
        ends = segment_steps(batch, str(self)).last & counts
        return replace(coefficient, value=apply_mask(suffix_min(value, ends), counts))


@dataclass(frozen=True)
class subtract_step_share_of_others(Credit):
    """c_n ← c_n - |step n| · b_i on the last token of step n, b_i the other rollouts' Σ c / Σ tokens.

    A baseline per token and not per step, which would pay for having fewer steps. 0 is subtracted where a rollout is
    alone in its group.
    """

    needs = frozenset({"step"})
    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, counts = get_token_values(coefficient, batch)
        steps = segment_steps(batch, str(self))
        share = steps.spread(steps.size) * token_mean_of_others(value, counts, batch.groups)[:, None]
        return replace(coefficient, value=value - apply_mask(share, steps.last & counts))


@dataclass(frozen=True)
class skip_step_ends(Credit):
    """c_{i,t} ← 0 on the last token of each step, its separator: where steps are cut is not learnt from.

    The tokens stay in every denominator.
    """

    needs = frozenset({"step"})

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, counts = get_token_values(coefficient, batch)
        return replace(coefficient, value=apply_mask(value, counts & ~segment_steps(batch, str(self)).last))
