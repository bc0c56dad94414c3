"""`turn_reward`: the reward of an episode, spread over its turns by a regression that learns beside the policy."""

from dataclasses import dataclass
from typing import ClassVar

from qredit.core.schedule import check_range
from qredit.engine.return_redistribution import ReturnRedistribution
from qredit.fields._kinds import LearnerMaker
from qredit.utils.errors import check_count


@dataclass(frozen=True)
class redistributed_return(LearnerMaker):
    """`turn_reward` (B, T): r_k = f(φ_k) on the tokens of turn k, with f fitted to the rewards R of whole episodes.

        L = mean over the scored episodes of a step of (Σ_k f(φ_k) - R)²

    φ_k are the fields `turn_feature@0`, …, which `turn_features` fills. f is a network of linear layers with ReLU
    between. All its rewards are 0 before the first step, so the policy learns nothing of them there. They have no
    scale of their own: at the optimum their sum is the mean reward of episodes with such features. With an environment
    they take the place of the rewards that it gives to single turns. Its state is checkpointed. Logged:
    `redistributed_return/loss`, and `redistributed_return/variance` of the rewards. A loss that stays near the variance
    says that the features tell nothing of the outcome.

    Args:
        features: how many fields there are.
        lr: Adam's learning rate.
        layers: of f; 1 makes it linear.
        width: of the layers between.
        updates: steps of Adam in each optimiser step of the policy.

    Raises:
        QreditError: an argument out of its range. A checkpoint of another network is refused.

    Source: arXiv 2412.11120 (LaRe) and its official code, three layers of width 256 and Adam at 3e-4. Differences:
    there f is fitted to episodes of a replay buffer, to R divided by the number of steps, and in one variant to some of
    the steps, drawn at random; here to all turns of the step's episodes. The number of updates is ours.
    """

    features: int
    lr: float = 3e-4
    layers: int = 3
    width: int = 256
    updates: int = 10
    fills: ClassVar[tuple[str, ...]] = ("turn_reward",)

    def __post_init__(self) -> None:
        check_range("lr", self.lr, 1e-12, 1.0)
        for name in ("features", "layers", "width", "updates"):
            check_count(f"{name} of redistributed_return", getattr(self, name), 1)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.make_learner("turn_reward").needs)

    def make_learner(self, field: str) -> ReturnRedistribution:
        return ReturnRedistribution(self.features, self.lr, self.layers, self.width, self.updates)
