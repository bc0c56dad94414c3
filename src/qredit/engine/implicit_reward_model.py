"""An implicit reward model: a copy of the policy that learns from outcomes how probable tokens of good rollouts are.

    d_t = log p_M(o_t) - log p_S(o_t),   D_i = beta · (mean over the turns of rollout i of Σ_t d_t)

S is the policy that sampled. Learned by pairs (iStar) or by outcomes (ITPO), the numbers beta · d_t are rewards of
tokens, and their sums over a turn those of turns.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from qredit.engine.collective import Collective
from qredit.engine.learner import step_together
from qredit.engine.reference_model import ReferenceModel
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.patch_forward import score
from qredit.stats.masked import apply_mask
from qredit.stats.segment import Segments
from qredit.utils.errors import QreditError

Loss = Callable[[Float[Tensor, " N"], Float[Tensor, " N"], Tensor], tuple[Float[Tensor, ""], float]]
"""(D, reward and number of the group of each rollout) → the sum of its terms, and how many there are."""


def compare_pairs(
    margin: Float[Tensor, " N"], reward: Float[Tensor, " N"], group: Tensor
) -> tuple[Float[Tensor, ""], float]:
    """Σ -log σ(D_i - D_j) over all pairs of a rollout i that is rewarded and a j of its group that is not.

    Args:
        margin: (N,) D of each rollout.
        reward: (N,) above 0 is a success.
        group: (N,) number of its group.

    Returns:
        The sum, and the number of pairs.
    """
    pairs = (reward > 0)[:, None] & (reward <= 0)[None, :] & (group[:, None] == group[None, :])
    return apply_mask(-logsigmoid(margin[:, None] - margin[None, :]), pairs).sum(), float(pairs.sum())


def predict_outcomes(
    margin: Float[Tensor, " N"], reward: Float[Tensor, " N"], group: Tensor
) -> tuple[Float[Tensor, ""], float]:
    """Σ -log σ(±D_i), + where rollout i is rewarded: the cross-entropy of the outcome.

    Args:
        margin: (N,) D of each rollout.
        reward: (N,) above 0 is a success.
        group: (N,) not read.

    Returns:
        The sum, and the number of rollouts.
    """
    return softplus(torch.where(reward > 0, -margin, margin)).sum(), float(len(margin))


LOSSES: Mapping[str, Loss] = {"pairs": compare_pairs, "outcomes": predict_outcomes}


class ImplicitRewardModel:
    """A `Learner` that fills `logp@NAME`: log-probabilities, in nats, under a copy of the policy that learns on.

    The copy is made when rollouts are made for the first time. AdamW without weight decay, gradients clipped by norm.

    Args:
        teacher: NAME.
        loss: of `LOSSES`.
        beta: strength of the log-ratio.
        lr: learning rate.
        largest_norm: of the gradient.
    """

    needs = ()

    def __init__(self, teacher: str, loss: Loss, beta: float, lr: float, largest_norm: float = 10.0) -> None:
        self.name, self.fills = f"implicit_{teacher}", (f"logp@{teacher}",)
        self.loss, self.beta, self.lr, self.largest_norm = loss, beta, lr, largest_norm
        self._model: Any = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._kept: Mapping[str, Any] | None = None

    def fill(self, rows: Rows, forward: Forward) -> Mapping[str, Tensor]:
        model, _ = self._made(forward)
        return {self.fills[0]: forward.scores(model, rows)["logp"]}

    def learn(self, rows: Sequence[Rows], forward: Forward, collective: Collective) -> Mapping[str, float]:
        """A step; its loss before it, the number of terms that it is the mean of, and the length of its gradient.

        Args:
            rows: of the optimiser step on this process, by micro-batch, whole groups in each.
            forward: runs a model without gradient; says how rows lie.
            collective: the processes that train together; the loss is the mean over the terms of all.
        """
        model, optimizer = self._made(forward)
        slopes, total, count = [], 0.0, 0.0
        for one in rows:
            with torch.no_grad():
                margin = self._margin(one, forward.scores(model, one)["logp"])
            own, terms, slope = self._differentiate(margin, one)
            slopes.append(slope)
            total, count = total + own, count + terms
        told = collective.sum(torch.tensor([total, count], dtype=torch.float64, device=rows[0].batch.mask.device))
        if float(told[1]) == 0:  # AdamW would move by what it remembers
            return {"loss": 0.0, "terms": 0.0}
        for one, slope in zip(rows, slopes, strict=True):
            self._backward(model, one, slope / told[1], forward)
        norm = step_together(optimizer, collective, self.largest_norm)
        return {"loss": float(told[0] / told[1]), "terms": float(told[1]), "grad_norm": float(norm)}

    def state_dict(self) -> dict[str, Any]:
        if self._model is None or self._optimizer is None:
            return {"model": {}, "optimizer": {}} if self._kept is None else dict(self._kept)
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Taken up when the copy is made: only then is there a policy to make it of."""
        self._model = self._optimizer = None
        self._kept = state if state["model"] else None

    def _made(self, forward: Forward) -> tuple[Any, torch.optim.Optimizer]:
        if self._model is None or self._optimizer is None:
            copied = ReferenceModel(forward.policy)
            if copied.adapted:
                raise QreditError(f"'{self.fills[0]}' learns in a copy of the whole policy; train without adapters")
            self._model = copied.model.requires_grad_(True)
            self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=self.lr, weight_decay=0.0)
            if self._kept is not None:
                self._model.load_state_dict(self._kept["model"])
                self._optimizer.load_state_dict(self._kept["optimizer"])
                self._kept = None
        return self._model, self._optimizer

    def _margin(self, rows: Rows, logp: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        """D of each row."""
        batch = rows.batch
        before = batch.require("logp", self.name) if batch.sampler_logp is None else batch.sampler_logp
        total = apply_mask(logp.double() - before.double(), batch.sampled).sum(1)
        turns = Segments.of(batch.require("turn", self.name), batch.sampled).exists.sum(1)
        return self.beta * total / turns.clamp(min=1)

    def _differentiate(self, margin: Float[Tensor, " B"], rows: Rows) -> tuple[float, float, Float[Tensor, " B"]]:
        """The loss's sum, its number of terms, and the slope of the sum along each row's D."""
        scored = rows.batch.drawn_rows & ~rows.batch.require("reward", self.name).isnan()
        free = margin.detach().requires_grad_(True)
        loss, terms = self.loss(free[scored], rows.batch.require("reward", self.name)[scored], rows.batch.group[scored])
        (slope,) = torch.autograd.grad(loss, free) if terms else (torch.zeros_like(free),)
        return float(loss.detach()), terms, slope

    def _backward(self, model: Any, rows: Rows, slope: Float[Tensor, " B"], forward: Forward) -> None:
        """Add the gradient of Σ slope · D over the rows, pass by pass, so that one pass's activations are held."""
        for chunk in forward.split_rows(rows):
            moved = chunk[slope[chunk] != 0]
            if len(moved):
                part = rows.select(moved)
                logp = score(model, forward.layout(part), forward.temperature)["logp"]
                (slope[moved] * self._margin(part, logp)).sum().backward()
