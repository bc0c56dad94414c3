"""Claims of the group family."""

import torch

from qredit.lab.laws import StageSubject, Subject
from qredit.objectives import rloo


def _less_the_others(batch):
    """r_i - mean of the other scored rewards of the group, on sampled tokens."""
    credit = torch.zeros(batch.mask.shape)
    for row, (group, reward) in enumerate(zip(batch.group, batch.reward, strict=True)):
        others = [
            float(other)
            for number, other in enumerate(batch.reward)
            if number != row and batch.group[number] == group and not other.isnan()
        ]
        if not reward.isnan():
            credit[row, batch.sampled[row]] = float(reward) - (sum(others) / len(others) if others else 0.0)
    return credit


BATTERY: tuple[Subject, ...] = (Subject(rloo(), reference=_less_the_others),)
STAGES: tuple[StageSubject, ...] = ()
