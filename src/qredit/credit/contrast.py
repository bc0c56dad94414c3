"""A token's reward read off two prompts that ask for a better and for a worse answer."""

from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Source


@dataclass(frozen=True)
class contrastive_reward(Source):
    """c_t = sigmoid(log p_better(y_t) - log p_worse(y_t)) - ½ on sampled tokens, between -½ and ½; 0 elsewhere.

    `logp@better` and `logp@worse` (B, T) are a reference model's log-probabilities of the same tokens after two
    prompts that ask it to revise the answer, one for the better, one for the worse.

    Of two rows that share a rationale that of the gold answer is kept out.

    Source: arXiv 2412.02685, known from others' notes.
    """

    needs = frozenset({"logp@better", "logp@worse"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        better, worse = (batch.require(name, str(self)).double() for name in ("logp@better", "logp@worse"))
        value = torch.where(batch.sampled, (better - worse).sigmoid() - 0.5, 0.0)
        return Coefficient(value, keep=batch.drawn_rows[:, None])
