"""`logp@NAME`: an implicit reward model that learns beside the policy."""

from dataclasses import dataclass
from typing import ClassVar

from qredit.core.field_names import LOGP_PREFIX
from qredit.core.schedule import check_range
from qredit.engine.implicit_reward_model import LOSSES, ImplicitRewardModel
from qredit.fields._kinds import LearnerMaker
from qredit.utils.errors import unknown_name_error


@dataclass(frozen=True)
class implicit_prm(LearnerMaker):
    """`logp@NAME` (B, T): log-probability of each token, in nats, under a copy of the policy that learns from outcomes.

        L = mean of -log σ(D_i - D_j) over all pairs of a success i and a failure j of a prompt   ('pairs')
        L = mean of -log σ(±D_i) over rollouts, + for a success                                   ('outcomes')
        D_i = beta · (mean over the turns of i of Σ_t (log p_M(o_t) - log p_S(o_t))),   S the policy that sampled

    A rollout of a reward above 0 is a success. Rollouts of a generation are scored by the copy as it was before its
    first step on them. A step without a pair moves nothing. The copy and its optimiser hold three times the policy's
    weights, and are checkpointed; it costs a forward pass for each generation, and a forward and a training pass of
    the rollouts that have a pair for each step. Logged: `implicit_NAME/loss`, `terms` (pairs or rollouts), `grad_norm`.

    Args:
        beta: strength of the log-ratio; that of the objective that reads it.
        lr: AdamW's learning rate.
        loss: 'pairs' or 'outcomes'.

    Raises:
        QreditError: an argument out of its range. A policy with adapters is refused when rollouts are first made.

    Source: arXiv 2509.19199 (iStar) and its official code: pairs, beta 0.05, lr 1e-6, gradients clipped at 10, the mean
    over turns where its text has the sum. Outcomes: arXiv 2603.23550 (ITPO), known from notes.
    """

    beta: float = 0.05
    lr: float = 1e-6
    loss: str = "pairs"
    fills: ClassVar[tuple[str, ...]] = (LOGP_PREFIX,)

    def __post_init__(self) -> None:
        check_range("beta", self.beta, 1e-12, 1e6)
        check_range("lr", self.lr, 1e-12, 1.0)
        if self.loss not in LOSSES:
            raise unknown_name_error("loss of implicit_prm", self.loss, LOSSES)

    def make_learner(self, field: str) -> ImplicitRewardModel:
        return ImplicitRewardModel(field.removeprefix(LOGP_PREFIX), LOSSES[self.loss], self.beta, self.lr)
