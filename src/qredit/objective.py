"""Objective: a credit chain, a surrogate, penalties and a reduction: all that turns a RolloutBatch into a loss."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.batch import RolloutBatch
from qredit.chain import Coefficient, Credit, Scope, Source, State, StatefulCredit, Walk, When, chain, stages
from qredit.errors import QreditError
from qredit.penalty.base import Penalty
from qredit.reduce import Reduction, sum_per_rollout
from qredit.schedule import Schedule, resolve
from qredit.surrogate import Surrogate, score_function


@dataclass(frozen=True, eq=False)
class Credited:
    """An evaluated credit chain: `value` (B, T) float32, and the reduction's token weight where a stage set one."""

    value: Float[Tensor, "B T"]
    weight: Float[Tensor, "B T"] | None = None

    def select(self, rows: slice | Tensor) -> "Credited":
        """Some of the rows."""
        return Credited(self.value[rows], None if self.weight is None else self.weight[rows])


@dataclass(frozen=True)
class Objective:
    """What a run learns from.

    Attributes:
        source: the credit chain.
        surrogate: from coefficient and log-probabilities to a per-token loss.
        reduction: from (B, T) to a scalar.
        penalties: added loss terms, each with its own denominator.
        text: the short form it was made from, such as `garl(q=0.75)`; `expansion` prints the stages.
    """

    source: Source
    surrogate: Surrogate = score_function()
    reduction: Reduction = sum_per_rollout()
    penalties: tuple[Penalty, ...] = ()
    text: str = field(default="", compare=False)

    @property
    def needs(self) -> frozenset[str]:
        """Batch fields that the chain and the penalties read."""
        return self.source.needs.union(*(penalty.needs for penalty in self.penalties))

    @property
    def scope(self) -> Scope:
        """The widest scope of any stage."""
        return self.source.scope

    @property
    def when(self) -> When:
        """UPDATE if any stage must be recomputed when the parameters move."""
        return self.source.when

    @property
    def counts_rollouts(self) -> bool:
        """Whether every denominator is a function of the number of rollouts alone; a penalty counts tokens."""
        return self.reduction.counts_rollouts and not self.penalties

    @property
    def draws(self) -> bool:
        """Whether a stage draws numbers, as resampling does: many rows may end without a coefficient."""
        return "seed" in self.needs

    def learning(self, credited: Credited) -> Bool[Tensor, " B"]:
        """Rows that contribute a gradient: those with a coefficient, and all of them where there is a penalty."""
        return (credited.value != 0).any(1) | bool(self.penalties)

    def at(self, progress: float) -> "Objective":
        """The plain objective of that moment of training (0 … 1): every schedule replaced by its value."""
        return resolve(self, progress)

    def credit(self, batch: RolloutBatch, state: Mapping[str, State] | None = None) -> Float[Tensor, "B T"]:
        """The coefficient that multiplies each token's log-probability, float32 (B, T), under the average over rows.

        Exactly 0 outside the mask and on tokens that were neither sampled nor part of the gold answer.

        Raises:
            QreditError: a field in `needs` is missing, or a hyper-parameter is still a schedule (use `at`).
        """
        return self.evaluate(batch, state).value

    def evaluate(self, batch: RolloutBatch, state: Mapping[str, State] | None = None) -> Credited:
        """`credit`, with the reduction's weight beside it."""
        self._check_ready(batch)
        return _finish(self.source.run(batch, Walk(state=state or {})), batch)

    def loss(
        self,
        logp: Float[Tensor, "B T"],
        batch: RolloutBatch,
        credited: Credited | None = None,
        state: Mapping[str, State] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch that is a whole optimiser step, differentiable in `logp`.

        Args:
            logp: (B, T) log-probability of each completion token at the current parameters, with gradient.
            credited: an evaluation made before; None evaluates now.
            state: explicit state of stateful stages.
        """
        credited = self.evaluate(batch, state) if credited is None else credited
        numerators = self.numerators(logp, batch, credited)
        return sum_terms(numerators, self.denominators(batch, credited))

    def numerators(
        self, logp: Float[Tensor, "B T"], batch: RolloutBatch, credited: Credited
    ) -> dict[str, Float[Tensor, ""]]:
        """The sums that these rows contribute to each loss term, by name; 'policy' is the surrogate's."""
        per_token = self.surrogate(credited.value.to(logp.dtype), logp, batch)
        terms = {"policy": self.reduction.numerator(per_token, batch, credited.weight)}
        for penalty in self.penalties:
            terms[penalty.name] = penalty.numerator(logp, batch, credited.value)
        return terms

    def denominators(self, batch: RolloutBatch, credited: Credited | None = None) -> dict[str, float]:
        """What these rows contribute to each term's denominator; known before any forward pass."""
        weight = None if credited is None else credited.weight
        counts = {"policy": self.reduction.denominator(batch, weight)}
        for penalty in self.penalties:
            counts[penalty.name] = penalty.denominator(batch)
        return counts

    def init_state(self) -> dict[str, State]:
        """State of every stateful stage before the first step, by its place in the chain."""
        return {place: stage.init() for place, stage in stages(self.source) if isinstance(stage, StatefulCredit)}

    def statistics(self, batch: RolloutBatch, state: Mapping[str, State]) -> dict[str, State]:
        """What the stateful stages need of this batch; sum it over micro-batches and processes."""
        found: dict[str, State] = {}
        self.source.run(batch, Walk(state=state, statistics=found))
        return found

    def update_state(self, state: Mapping[str, State], statistics: Mapping[str, State]) -> dict[str, State]:
        """State after an optimiser step with these summed statistics."""
        stateful = {place: stage for place, stage in stages(self.source) if isinstance(stage, StatefulCredit)}
        return {place: stage.update(state[place], statistics[place]) for place, stage in stateful.items()}

    @property
    def expansion(self) -> str:
        """The objective written out in stages: what the short form stands for."""
        parts = [f"credit: {self.source}", f"surrogate: {self.surrogate}", f"reduction: {self.reduction}"]
        parts += [f"penalty: {penalty}" for penalty in self.penalties]
        return "\n".join(parts)

    def __or__(self, credit: Credit) -> "Objective":
        """The same objective with one more credit at the end of its chain."""
        return replace(self, source=chain(self.source, credit), text=f"{self} | {credit}")

    def __str__(self) -> str:
        return self.text or str(self.source)

    def _check_ready(self, batch: RolloutBatch) -> None:
        for name in sorted(self.source.needs):
            batch.require(name, str(self))
        for _, stage in stages(self.source):
            for f in dataclasses.fields(stage):  # type: ignore[arg-type]
                if isinstance(getattr(stage, f.name), Schedule):
                    raise QreditError(f"{f.name} of {stage} is a schedule; take objective.at(progress) first")


def trace(objective: Objective, batch: RolloutBatch) -> dict[str, Float[Tensor, "B T"]]:
    """What each stage of the chain made of the coefficient: an ordered map stage → coefficient (B, T), float32.

    The last entry, 'credit', is `objective.credit(batch)`. A stage inside a span operator is shown on its span, under
    the span's name: `rationale/amplified_likelihood(q=0.75)`. Logs, reports and viewers read this; formulas hold no
    metrics code.
    """
    objective._check_ready(batch)
    walk = Walk(seen={})
    final = objective.source.run(batch, walk)
    shown: dict[str, Tensor] = {}
    for place, (stage, coefficient, within) in (walk.seen or {}).items():
        spans = "".join(f"{_POSITION.sub('', part)}/" for part in place.split("/")[:-1])
        key, copies = f"{spans}{stage}", 2
        while key in shown:
            key, copies = f"{spans}{stage} #{copies}", copies + 1
        value = coefficient.spread(batch)
        shown[key] = (value if within is None else torch.where(within, value, 0.0)).float()
    shown["credit"] = _finish(final, batch).value
    return shown


_POSITION = re.compile(r"^(\+?\d+\.)+")  # a place is made of positions ("0.", "+1.") and span names ("rationale/")


def _finish(coefficient: Coefficient, batch: RolloutBatch) -> Credited:
    value = torch.where(batch.trainable, coefficient.spread(batch), 0.0).float()
    weight = coefficient.weight
    return Credited(value, None if weight is None else weight.expand(batch.mask.shape))


def sum_terms(numerators: Mapping[str, Tensor], denominators: Mapping[str, float]) -> Tensor:
    """Σ numerator / denominator over the loss terms; a term whose denominator is 0 has nothing to add."""
    terms = [numerator / (denominators[name] or 1.0) for name, numerator in numerators.items()]
    return torch.stack(terms).sum()
