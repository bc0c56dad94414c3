"""`logp@NAME`: a reference that follows the policy."""

from dataclasses import dataclass
from typing import ClassVar

from qredit.core.field_names import LOGP_PREFIX
from qredit.engine.weight_average import WeightAverage
from qredit.fields._kinds import LearnerMaker
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class moving_average(LearnerMaker):
    """`logp@NAME` (B, T): log-probability of each token, in nats, under a moving average of the policy's weights.

        θ̄ ← rate · θ̄ + (1 - rate) · θ,   once an optimiser step, θ the policy before that step

    So a divergence from it pulls the policy towards where it was lately, about 1/(1 - rate) steps ago, and not towards
    where the run began. It holds the weights a second time, is checkpointed, and costs a forward pass for each
    generation. Logged: `average_NAME/distance`, ‖θ - θ̄‖/‖θ‖ before each step.

    Args:
        rate: of what is kept, at least 0 and less than 1. 1 would be `reference`, the model that the run began with.

    Raises:
        QreditError: a rate out of its range. A policy with adapters is refused when rollouts are first made.

    Source: arXiv 2501.11651 (T1), known from others' notes, which tell no rate.
    """

    rate: float
    fills: ClassVar[tuple[str, ...]] = (LOGP_PREFIX,)

    def __post_init__(self) -> None:
        if not (isinstance(self.rate, int | float) and 0 <= self.rate < 1):
            raise QreditError(
                f"rate of moving_average must be at least 0 and less than 1, got {self.rate!r}; logp@reference stays "
                "where the run began"
            )

    def make_learner(self, field: str) -> WeightAverage:
        return WeightAverage(field.removeprefix(LOGP_PREFIX), self.rate)
