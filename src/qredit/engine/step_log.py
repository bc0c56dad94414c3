"""The facts of an optimiser step, collected micro-batch by micro-batch, and what they say over all processes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qredit.control.diagnostics import (
    collect_likelihood_stats,
    compute_likelihood_metrics,
    get_q,
    mean_or_nan,
    no_success,
    success,
)
from qredit.core.batch import RolloutBatch
from qredit.core.field_names import ANSWER_AFTER, ANSWER_AT
from qredit.core.objective import Credited, Objective
from qredit.engine.collective import Collective
from qredit.engine.mismatch import LOG_RATIO, compute_mismatch_metrics


class StepLog:
    """The facts of the micro-batches since it was last asked."""

    def __init__(self, collective: Collective) -> None:
        self.collective = collective
        self._facts: list[dict[str, Tensor]] = []

    def add(self, objective: Objective, batch: RolloutBatch, further: Mapping[str, Tensor] | None = None) -> None:
        """Take in a scored micro-batch.

        Args:
            objective: of this moment.
            batch: its rows.
            further: other facts of it, to be joined over micro-batches along their first dimension.

        The entropy is that of the tokens that were scored: PAFT scores the rationales that it draws.
        """
        # Sums and counts are kept, not means: micro-batches differ in tokens, and a mean of their means would depend on
        # how the step was cut up. Numbers of groups are kept one by one, because quantiles need them all.
        entropy = batch.require("entropy", "the log").detach()
        scored = batch.sampled & ~entropy.isnan()
        facts = {
            **collect_likelihood_stats(objective, batch),
            "no_success": no_success(batch),
            "success": success(batch),
            "entropy": torch.stack([entropy[scored].sum().double(), scored.sum().double()])[None],
            **_collect_beliefs(batch),
            **(further or {}),
        }
        self._facts.append(move_to_cpu(facts))

    def take(self) -> dict[str, Tensor]:
        """The facts of all processes, name by name; from here on it collects anew."""
        whole = concatenate_stats(self.collective.gather(self._facts))
        self._facts = []
        return whole


def compute_metrics(objective: Objective, facts: Mapping[str, Tensor]) -> dict[str, float]:
    """What is logged of a step."""
    return {
        "groups/no_success": mean_or_nan(facts["no_success"]),
        "entropy": float(facts["entropy"][:, 0].sum() / facts["entropy"][:, 1].sum().clamp(min=1)),
        **(compute_likelihood_metrics(get_q(objective), facts) if "p_hat" in facts else {}),
        **(compute_mismatch_metrics(facts) if LOG_RATIO in facts else {}),
        **(_compute_covariance(facts[_COVARIANCE]) if _COVARIANCE in facts else {}),
        **{name: mean_or_nan(facts[name][~facts[name].isnan()]) for name in _BELIEFS if name in facts},
    }


def list_success(facts: Mapping[str, Tensor]) -> list[float]:
    """The success of each group: its mean likelihood, or its mean reward where the objective reads no likelihood."""
    likely = facts.get("p_hat")
    success: list[float] = (10**likely if likely is not None else facts["success"]).tolist()
    return success


_COVARIANCE = "coefficient/covariance"


def collect_covariance(credited: Credited | None, batch: RolloutBatch) -> dict[str, Tensor]:
    """The moments of coefficient and log-probability over the sampled tokens, (1, 4): n, Σ c, Σ log p, Σ c·log p.

    Both are there already, so nothing is computed that the step did not need. Nothing where coefficients were not known
    before the loss. Tokens that were not scored do not count.

    Args:
        credited: the coefficients, if they were known.
        batch: the scored rows.

    Source: arXiv 2505.22617: entropy falls as this covariance is positive, which Clip-Cov and KL-Cov act on by token.
    """
    if credited is None or batch.logp is None:
        return {}
    logp = batch.logp.detach().double()
    counted = batch.sampled & ~logp.isnan()
    c, logp = credited.value.detach().double()[counted], logp[counted]
    count = counted.sum().double()
    return {_COVARIANCE: torch.stack([count, c.sum(), logp.sum(), (c * logp).sum()])[None]}


def _compute_covariance(moments: Tensor) -> dict[str, float]:
    """Cov(c, log p) of all tokens, from the moments of micro-batches; nothing where there is no token."""
    n, c, logp, both = moments.sum(0).tolist()
    return {_COVARIANCE: both / n - (c / n) * (logp / n)} if n else {}


_BELIEFS = ("belief/first", "belief/last")


def _collect_beliefs(batch: RolloutBatch) -> dict[str, Tensor]:
    """(B,) the geometric mean of the right answer's likelihood per token, before the first turn and after the last."""
    if ANSWER_AT not in batch.extra or ANSWER_AFTER not in batch.extra:
        return {}
    return dict(zip(_BELIEFS, (batch.extra[ANSWER_AT][:, 0].exp(), batch.extra[ANSWER_AFTER].exp()), strict=True))


def move_to_cpu(facts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Facts as they are gathered: float64, on the CPU."""
    return {name: values.double().cpu() for name, values in facts.items()}


def concatenate_stats(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The facts of several batches, name by name."""
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in parts[0]}
