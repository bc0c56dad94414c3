"""A trust region that is wider where a signal is large."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit
from qredit.core.schedule import check_range


@dataclass(frozen=True)
class scale_clip(Credit):
    """Scale the half-widths of the surrogate's trust region by what stands here; the coefficient stays as it is.

        scale = 1 + strength · (2 sigmoid(x) - 1),    x the coefficient so far, and 1 where it does not count

    So tokens with a signal above 0 may move further than the surrogate's `low` and `high`, up to 1 + strength times as
    far, and those below 0 less far. In a sum of sources it concerns the whole sum. Scales of several
    stages are multiplied.

    Args:
        strength: b, from 0 to 1.

    Errors: an objective whose surrogate has no trust region is refused, before a run and before an evaluation.

    Source: arXiv 2605.06200, where x is the standardised gain of a turn and b is 0.3.
    """

    strength: float
    scales_clip: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("strength of scale_clip", self.strength, 0.0, 1.0)

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        scale = 1.0 + self.strength * (2.0 * torch.sigmoid(coefficient.value) - 1.0)
        if coefficient.keep is not None:
            scale = torch.where(coefficient.keep, scale, 1.0)
        if coefficient.clip_scale is not None:
            scale = coefficient.clip_scale * scale
        return replace(coefficient, clip_scale=scale)
