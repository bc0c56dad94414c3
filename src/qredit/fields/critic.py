"""`value`: a critic that learns beside the policy, on the policy's own states."""

from dataclasses import dataclass
from typing import ClassVar

from qredit.core.schedule import check_range
from qredit.engine.critic import LinearCritic
from qredit.fields._kinds import LearnerMaker


@dataclass(frozen=True)
class critic(LearnerMaker):
    """`value` (B, T): an estimate of the reward at each sampled token, by a linear head on the policy's last states.

        V_t = w · h_t + b,   fitted by Adam to Σ (V_t - r)² / n over the n sampled tokens of scored rollouts

    h_t is the state that predicts token t; the policy gets no gradient of it. Every value is 0 before the first step.
    It costs a forward pass of the policy for each generation and one for each step. Its state is checkpointed. Logged:
    `critic/loss`.

    Args:
        lr: Adam's learning rate.

    Source: a critic is what arXiv 2410.02743 has. Differences: there it is a second model as large as the policy,
    fitted to the returns of macro actions under λ and with clipped values; this is a head alone, fitted to the reward
    of the whole rollout.
    """

    lr: float = 1e-3
    fills: ClassVar[tuple[str, ...]] = ("value",)

    def __post_init__(self) -> None:
        check_range("lr", self.lr, 1e-12, 1.0)

    def make_learner(self, field: str) -> LinearCritic:
        return LinearCritic(self.lr)
