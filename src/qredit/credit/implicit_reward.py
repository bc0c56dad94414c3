"""The reward that a model says implicitly: how much likelier it makes each token than another model does."""

import math
from dataclasses import dataclass

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Source
from qredit.core.field_names import LOGP_PREFIX, REFERENCE
from qredit.core.schedule import check_range

SAMPLER = "sampler"


@dataclass(frozen=True)
class implicit_reward(Source):
    """c_t = strength · (log p_M(o_t) - log p_B(o_t)) on every sampled token, M the model and B its base.

    A model that was trained from B by preferences (DPO, with β = strength) is a reward model: these numbers summed over
    a rollout are its reward up to a constant of the prompt, and each is the advantage of its token in the decision
    process of tokens. Constants of the rollouts: the policy's own changes do not move them.

    Of two rows that share a rationale that of the gold answer is kept out.

    Args:
        model: M, by the name of its field: `logp@prm` for 'prm'.
        base: B, likewise, or 'sampler' for the policy that sampled the rollouts.
        strength: β.

    Source: arXiv 2404.12358 ("From r to Q*"), the identity of its section 4; the base 'sampler' is that of arXiv
    2509.19199 (iStar).
    """

    model: str
    base: str = REFERENCE
    strength: float = 0.05

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, math.inf)

    @property
    def needs(self) -> frozenset[str]:
        """The log-probabilities under both; those of the sampler are `logp` where no others are known."""
        return frozenset(
            {f"{LOGP_PREFIX}{self.model}", "logp" if self.base == SAMPLER else f"{LOGP_PREFIX}{self.base}"}
        )

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        told = batch.require(f"{LOGP_PREFIX}{self.model}", str(self)).double()
        if self.base == SAMPLER:
            now = batch.require("logp", str(self))
            base = now if batch.sampler_logp is None else batch.sampler_logp
        else:
            base = batch.require(f"{LOGP_PREFIX}{self.base}", str(self))
        value = torch.where(batch.sampled, self.strength * (told - base.double()), 0.0)
        return Coefficient(value, keep=batch.drawn_rows[:, None])
