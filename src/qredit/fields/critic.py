"""`value`: a critic that learns beside the policy, on the policy's own states."""

from dataclasses import dataclass
from typing import ClassVar

from qredit.core.schedule import check_range
from qredit.engine.critic import LinearCritic, OutcomeTarget, RewardToCome
from qredit.fields._kinds import LearnerMaker


@dataclass(frozen=True)
class critic(LearnerMaker):
    """`value` (B, T): an estimate of a reward at each sampled token, by a linear head on the policy's last states.

        V_t = w · h_t + b,   fitted by Adam to Σ (V_t - G_t)² / n over the n sampled tokens of scored rollouts
        G_t = R, the reward of the rollout; with a discount γ  Σ_{j≥k} γ^{j-k} r_j  on the tokens of turn k

    h_t is the state that predicts token t; the policy gets no gradient of it. Every value is 0 before the first step.
    It costs a forward pass of the policy for each generation and one for each step. Its state is checkpointed. Logged:
    `critic/loss`.

    r_j is the reward of turn j, 0 where the environment gave none. A rollout without any turn's reward counts for
    nothing then.

    Args:
        lr: Adam's learning rate.
        discount: γ per turn, 0 … 1: fit the reward that is still to come, for rules over turns. 1 discounts nothing, 0
            asks for what the turn itself earns. None fits the reward of the whole rollout, at every token.

    Raises:
        QreditError: an argument out of its range; with a discount a run without an environment.

    Source: a critic is what arXiv 2410.02743 has. Differences: there it is a second model as large as the policy,
    fitted to the returns of macro actions under λ and with clipped values; this is a head alone, fitted to the sum of
    rewards without a λ.
    """

    lr: float = 1e-3
    discount: float | None = None
    fills: ClassVar[tuple[str, ...]] = ("value",)

    def __post_init__(self) -> None:
        check_range("lr", self.lr, 1e-12, 1.0)
        if self.discount is not None:
            check_range("discount", self.discount, 0.0, 1.0)

    def make_learner(self, field: str) -> LinearCritic:
        return LinearCritic(self.lr, OutcomeTarget() if self.discount is None else RewardToCome(self.discount))
