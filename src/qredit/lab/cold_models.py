"""Cold models whose escape is measured: the sigmoid model and a tabular policy, each with its GARL estimator."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.lab.policies import make_graded_policy
from qredit.objectives import garl
from qredit.testing.policy import TabularPolicy

_TABLE: TabularPolicy = make_graded_policy(0.1)  # what is read from it is the layout of its parameters


class ColdModel(ABC):
    """A model that can start at any small success probability, N starts at once, one row of parameters for each.

    `name` is what tables and plots call it.
    """

    name: ClassVar[str]

    @abstractmethod
    def start(self, p0: Float[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Parameters with these success probabilities."""

    @abstractmethod
    def log_success(self, theta: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """log P, differentiable."""

    @abstractmethod
    def garl_gradient(self, theta: Float[Tensor, "N D"], q: float, generator: torch.Generator) -> Float[Tensor, "N D"]:
        """GARL's estimate of ∇ℓ_q from a fresh group of rollouts for each start.

        Args:
            theta: (N, D) parameters of each start.
            q: commitment, 0 … 1.
            generator: of the draws.
        """


@dataclass(frozen=True)
class SigmoidModel(ColdModel):
    """P = σ(θ). Its rationales come from a fixed distribution, so that only likelihoods depend on θ.

    Rationale z has likelihood w_z = P·v_z with v uniform on (0, 2): graded, E w = P, below 1 while P < 1/2. All
    rationales share the score 1 - P and none has a gradient of its own, so GARL's Σ_m a_m ∇log w_m / M, with
    a_m = w_m / w̄^q, is w̄^{1-q} (1 - P), up to sign: all of its noise is that of w̄.
    """

    name = "sigmoid"
    rollouts: int = 32

    def start(self, p0: Float[Tensor, " N"]) -> Float[Tensor, "N D"]:
        return torch.logit(p0)[:, None]

    def log_success(self, theta: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        return torch.nn.functional.logsigmoid(theta[:, 0])

    def garl_gradient(self, theta: Float[Tensor, "N D"], q: float, generator: torch.Generator) -> Float[Tensor, "N D"]:
        v = 2 * torch.rand(len(theta), self.rollouts, dtype=theta.dtype, generator=generator)
        p = theta.sigmoid()
        mean_w = p * v.mean(1, keepdim=True)
        return -(mean_w ** (1 - q)) * (1 - p)


@dataclass(frozen=True)
class TabularModel(ColdModel):
    """The graded tabular policy. Its rationales are sampled from the parameters, and the estimate is the objective's.

    The score s = ∇log P keeps its size while the policy is cold: every likelihood falls in proportion to P, which
    leaves the posterior over rationales, and with it ‖s‖, as they are.
    """

    name = "tabular"
    rollouts: int = 16

    def start(self, p0: Float[Tensor, " N"]) -> Float[Tensor, "N D"]:
        return torch.stack([make_graded_policy(float(p)).theta for p in p0])

    def log_success(self, theta: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        rationale, answer = self._logps(theta)
        return (rationale[:, :, 0] + answer[:, :, 0]).logsumexp(1)

    def garl_gradient(self, theta: Float[Tensor, "N D"], q: float, generator: torch.Generator) -> Float[Tensor, "N D"]:
        point = theta.detach().requires_grad_()
        tokens, answers = self._logps(point)
        prior = tokens[:, :, 0].detach().exp()
        z = torch.multinomial(prior, self.rollouts, replacement=True, generator=generator)
        start = torch.arange(len(theta))[:, None]
        logp = torch.cat([tokens[start, z], answers[start, z, :1]], 2).flatten(0, 1)
        group = start.expand_as(z).flatten()
        loss = garl(q, normalize=False).loss(logp, self._batch(logp, group))
        # the loss is an average over every start's rows; a start's own average is N times its share
        return torch.autograd.grad(len(theta) * loss, point)[0]

    def _logps(self, theta: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N Z 2"], Float[Tensor, "N Z 2"]]:
        tokens, answers = torch.vmap(_TABLE.token_logps)(theta)
        return tokens, answers

    def _batch(self, logp: Float[Tensor, "B 3"], group: Int[Tensor, " B"]) -> RolloutBatch:
        """Rows of one rationale symbol, the forced closing symbol and the gold answer."""
        rationale, close, answer = torch.eye(3, dtype=torch.bool)[:, None].expand(3, *logp.shape)
        return RolloutBatch(
            mask=torch.ones_like(rationale),
            rationale=rationale,
            close=close,
            answer=answer,
            sampled=rationale,
            group=group,
            answer_logp=logp[:, -1].detach(),
        )
