"""Objective: a credit chain, a surrogate, penalties and a reduction: all that turns a RolloutBatch into a loss."""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import (
    Cadence,
    Coefficient,
    Credit,
    Scope,
    Source,
    State,
    Stateful,
    Walk,
    When,
    chain,
    named_stages,
)
from qredit.core.field_names import resolve_field_name
from qredit.core.hint import hint
from qredit.core.penalty import Penalty, StatefulPenalty
from qredit.core.reduce import Reduction, sum_per_rollout
from qredit.core.schedule import Schedule, resolve_schedules
from qredit.core.surrogate import ClippedSurrogate, Surrogate, score_function
from qredit.utils.errors import QreditError


@dataclass(frozen=True, eq=False)
class Credited:
    """An evaluated objective.

    Attributes:
        value: (B, T) the chain's coefficient, float32.
        weight: (B, T) the reduction's token weight, where a stage set one.
        penalties: (B, T) the weight of each penalty's term, in their order.
        holds_ratio: (B, 1) rows whose value already holds the importance ratio of their rationale; None is no row.
        clip_scale: (B, T) factor on the half-widths of the surrogate's trust region; None is 1 everywhere.
    """

    value: Float[Tensor, "B T"]
    weight: Float[Tensor, "B T"] | None = None
    penalties: tuple[Float[Tensor, "B T"], ...] = ()
    holds_ratio: Bool[Tensor, "B 1"] | None = None
    clip_scale: Float[Tensor, "B T"] | None = None

    @property
    def learning(self) -> Bool[Tensor, " B"]:
        """Rows that contribute a gradient: those with a coefficient or a penalty on some token."""
        found = (self.value != 0).any(1)
        for weight in self.penalties:
            found = found | (weight != 0).any(1)
        return found

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Credited":
        optional = (self.weight, self.holds_ratio, self.clip_scale)
        weight, holds, scale = (None if part is None else change(part) for part in optional)
        return Credited(change(self.value), weight, tuple(map(change, self.penalties)), holds, scale)

    def select(self, rows: slice | Tensor) -> "Credited":
        """Some of the rows."""
        return self._map(lambda tensor: tensor[rows])

    def narrow(self, width: int) -> "Credited":
        """The first columns."""
        return self._map(lambda tensor: tensor[:, :width])

    def to(self, device: torch.device) -> "Credited":
        """The same on another device."""
        return self._map(lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class Objective:
    """What a run learns from.

    Attributes:
        source: the credit chain.
        surrogate: from coefficient and log-probabilities to a per-token loss.
        reduction: from (B, T) to a scalar.
        penalties: added loss terms, each with its own denominator.
        proposal: what part of each group's rationales is drawn from the policy shown the gold answer; None is none.
        text: the short form it was made from, such as `garl(q=0.75)`; `expansion` prints the stages.
    """

    source: Source
    surrogate: Surrogate = score_function()
    reduction: Reduction = sum_per_rollout()
    penalties: tuple[Penalty, ...] = ()
    proposal: hint | None = None
    text: str = field(default="", compare=False)

    @property
    def needs(self) -> frozenset[str]:
        """Batch fields that the chain and the penalties read."""
        needs = self.source.needs.union(*(penalty.needs for penalty in self.penalties))
        return frozenset(map(resolve_field_name, needs))

    @property
    def needs_off_policy(self) -> frozenset[str]:
        """Batch fields that the chain reads beside `needs` where `batch.sampler_logp` is given."""
        return self.source.needs_off_policy

    @property
    def scope(self) -> Scope:
        """The widest scope of any stage or penalty."""
        return max(self.source.scope, *(penalty.scope for penalty in self.penalties), Scope.ROW)

    @property
    def when(self) -> When:
        """UPDATE if any stage or penalty must be recomputed when the parameters move."""
        return max(self.source.when, *(penalty.when for penalty in self.penalties), When.ROLLOUT)

    @property
    def counts_rollouts(self) -> bool:
        """Whether every denominator is a function of the number of rollouts alone; a penalty may count anything."""
        return self.reduction.counts_rollouts and not self.penalties

    @property
    def counts_coefficients(self) -> bool:
        """Whether a denominator is known only once the coefficients are."""
        return any(penalty.counts_coefficients for penalty in self.penalties)

    @property
    def draws(self) -> bool:
        """Whether a stage draws numbers, as resampling does: many rows may end without a coefficient."""
        return "seed" in self.needs

    def check(self) -> None:
        """Refuse a stage that scales the trust region of a surrogate without one.

        Asked where a run is described and before an evaluation, for a source by itself has no surrogate yet.
        """
        for _, stage in named_stages(self.source):
            if stage.scales_clip and not isinstance(self.surrogate, ClippedSurrogate):
                raise QreditError(f"{stage} scales a trust region, and {self.surrogate} has none; take a clipped one")

    def at(self, progress: float) -> "Objective":
        """The plain objective of that moment of training (0 … 1): every schedule replaced by its value."""
        return resolve_schedules(self, progress)

    def credit(self, batch: RolloutBatch, state: Mapping[str, State] | None = None) -> Float[Tensor, "B T"]:
        """The coefficient that multiplies each token's log-probability, float32 (B, T), under the average over rows.

        Exactly 0 outside the mask and on tokens that were neither sampled nor part of the gold answer.

        Raises:
            QreditError: a field in `needs` is missing, or a hyper-parameter is still a schedule (use `at`).
        """
        return self.evaluate(batch, state).value

    def evaluate(self, batch: RolloutBatch, state: Mapping[str, State] | None = None) -> Credited:
        """`credit`, with the reduction's weight and those of the penalties beside it; constants, without gradient."""
        self._check_ready(batch)
        with torch.no_grad():
            credited = _finish(self.source.run(batch, Walk(state=state or {})), batch)
            return replace(credited, penalties=tuple(self._penalty_weights(credited.value, batch, state or {})))

    def _penalty_weights(
        self, coefficient: Float[Tensor, "B T"], batch: RolloutBatch, state: Mapping[str, State]
    ) -> Iterator[Float[Tensor, "B T"]]:
        for place, penalty in self._named_penalties():
            if isinstance(penalty, StatefulPenalty):
                weight = penalty.weight_from(coefficient, batch, state.get(f"penalty {place}", penalty.init()))
            else:
                weight = penalty.weight(coefficient, batch)
            yield torch.where(batch.mask, weight, 0.0).float()

    def _named_penalties(self) -> Iterator[tuple[str, Penalty]]:
        """Each penalty under a name of its own: that of its kind, numbered from the second on."""
        seen: dict[str, int] = {}
        for penalty in self.penalties:
            seen[penalty.name] = count = seen.get(penalty.name, 0) + 1
            yield penalty.name if count == 1 else f"{penalty.name} #{count}", penalty

    def loss(
        self,
        logp: Float[Tensor, "B T"],
        batch: RolloutBatch,
        credited: Credited | None = None,
        state: Mapping[str, State] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch that is a whole optimiser step, differentiable in `logp`.

        For loops of one's own. A training run calls `evaluate` and `numerators` for each micro-batch, and divides by
        the denominators of the whole step (`engine/step.py`).

        Args:
            logp: (B, T) log-probability of each completion token at the current parameters, with gradient.
            batch: all rows of the step, with the fields in `needs`.
            credited: an evaluation made before; None evaluates now.
            state: explicit state of stateful stages.
        """
        credited = self.evaluate(batch, state) if credited is None else credited
        numerators = self.numerators(logp, batch, credited)
        return sum_terms(numerators, self.denominators(batch, credited))

    def numerators(
        self, logp: Float[Tensor, "B T"], batch: RolloutBatch, credited: Credited
    ) -> dict[str, Float[Tensor, ""]]:
        """The sums that these rows contribute to each loss term, by name; 'policy' is the surrogate's.

        Args:
            logp: (B, T) log-probability of each token in nats, with gradient.
            batch: whole groups, with the fields that are needed.
            credited: the evaluation of these rows.
        """
        seen = _mask_held_ratios(batch, logp, credited.holds_ratio)
        coefficient = credited.value.to(logp.dtype)
        if credited.clip_scale is None:
            per_token = self.surrogate(coefficient, logp, seen)
        else:
            if not isinstance(self.surrogate, ClippedSurrogate):  # a stage of the user's that does not say what it does
                raise QreditError(f"{self.source} scales a trust region, and {self.surrogate} has none")
            per_token = self.surrogate.clip(coefficient, logp, seen, credited.clip_scale.to(logp.dtype))
        terms = {"policy": self.reduction.numerator(per_token, batch, credited.weight)}
        for (name, penalty), weight in zip(self._named_penalties(), credited.penalties, strict=True):
            terms[name] = penalty.numerator(logp, batch, weight)
        return terms

    def denominators(self, batch: RolloutBatch, credited: Credited | None = None) -> dict[str, float]:
        """What these rows contribute to each term's denominator.

        Known before any forward pass, except those that count coefficients: without `credited` these are 0.
        """
        weight = None if credited is None else credited.weight
        counts = {"policy": self.reduction.denominator(batch, weight)}
        for name, penalty in self._named_penalties():
            known = credited is not None or not penalty.counts_coefficients
            coefficient = None if credited is None else credited.value
            counts[name] = penalty.denominator(batch, coefficient) if known else 0.0
        return counts

    def init_state(self) -> dict[str, State]:
        """State of every stateful stage and penalty before the first step, by its place."""
        return {place: stage.init() for place, stage in self._stateful()}

    def statistics(
        self, batch: RolloutBatch, state: Mapping[str, State], cadences: Collection[Cadence] = tuple(Cadence)
    ) -> dict[str, State]:
        """What the stateful parts of these cadences need of this batch; sum it over micro-batches and processes.

        Args:
            batch: whole groups, with the fields that are needed.
            state: explicit state of stateful stages, by their place.
            cadences: which parts are asked.
        """
        found: dict[str, State] = {}
        with torch.no_grad():
            credited = _finish(self.source.run(batch, Walk(state=state, statistics=found)), batch)
            for place, penalty in self._named_penalties():
                if isinstance(penalty, StatefulPenalty):
                    found[f"penalty {place}"] = penalty.statistics(credited.value, batch)
        return {place: found[place] for place in self.places(cadences)}

    def update_state(self, state: Mapping[str, State], statistics: Mapping[str, State]) -> dict[str, State]:
        """The next state, given these summed statistics; parts without any keep theirs."""
        return {
            place: stage.update(state[place], statistics[place]) if place in statistics else state[place]
            for place, stage in self._stateful()
        }

    def places(self, cadences: Collection[Cadence]) -> list[str]:
        """Where the stateful parts of these cadences stand."""
        return [place for place, stage in self._stateful() if stage.cadence in cadences]

    def waits_for_rollouts(self, state: Mapping[str, State]) -> bool:
        """Whether some part must see a whole generation before the first step on it."""
        return any(
            stage.cadence is Cadence.BEFORE and not stage.settled(state[place]) for place, stage in self._stateful()
        )

    def _stateful(self) -> Iterator[tuple[str, Stateful]]:
        for place, stage in named_stages(self.source):
            if isinstance(stage, Stateful):
                yield place, stage
        for place, penalty in self._named_penalties():
            if isinstance(penalty, StatefulPenalty):
                yield f"penalty {place}", penalty

    @property
    def expansion(self) -> str:
        """The objective written out in stages: what the short form stands for."""
        parts = [f"credit: {self.source}", f"surrogate: {self.surrogate}", f"reduction: {self.reduction}"]
        parts += [f"penalty: {penalty}" for penalty in self.penalties]
        parts += [] if self.proposal is None else [f"proposal: {self.proposal}"]
        return "\n".join(parts)

    def __or__(self, part: Credit | Penalty) -> "Objective":
        """The same objective with one more credit at the end of its chain, or with one more penalty."""
        text = f"{self} | {part}"
        if isinstance(part, Penalty):
            return replace(self, penalties=(*self.penalties, part), text=text)
        return replace(self, source=chain(self.source, part), text=text)

    def __str__(self) -> str:
        return self.text or str(self.source)

    def _check_ready(self, batch: RolloutBatch) -> None:
        self.check()
        for name in sorted(self.needs):
            batch.require(name, str(self))
        for part in (*(stage for _, stage in named_stages(self.source)), *self.penalties):
            for f in dataclasses.fields(part):  # type: ignore[arg-type]
                if isinstance(getattr(part, f.name), Schedule):
                    raise QreditError(f"{f.name} of {part} is a schedule; take objective.at(progress) first")
        for penalty in self.penalties:
            if penalty.counts_coefficients and penalty.scope < Scope.BATCH:
                raise QreditError(f"{penalty} counts coefficients; its scope must be BATCH")


def trace(
    objective: Objective, batch: RolloutBatch, state: Mapping[str, State] | None = None
) -> dict[str, Float[Tensor, "B T"]]:
    """What each stage of the chain made of the coefficient: an ordered map stage → coefficient (B, T), float32.

    The last entry, 'credit', is `objective.credit(batch, state)`. A stage inside a span operator is shown on its span,
    under the span's name: `rationale/amplified_likelihood(q=0.75)`. Logs, reports and viewers read this; formulas hold
    no metrics code.

    Args:
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        batch: whole groups, with the fields that are needed.
        state: explicit state of stateful stages, by their place; None is their first.
    """
    objective._check_ready(batch)
    walk = Walk(state=state or {}, seen={})
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
    value = torch.where(batch.trainable, coefficient.spread(batch), 0.0)
    if batch.answer_share is not None:  # here, for every stage means ∇log w by its coefficient on the answer
        value = value * batch.answer_share
    weight, scale = (
        None if part is None else part.expand(batch.mask.shape) for part in (coefficient.weight, coefficient.clip_scale)
    )
    return Credited(value.float(), weight, holds_ratio=coefficient.holds_ratio, clip_scale=scale)


def _mask_held_ratios(batch: RolloutBatch, logp: Tensor, rows: Tensor | None) -> RolloutBatch:
    """The batch as a surrogate may see it: marked rows are on-policy to it, whatever ratio it would have applied."""
    if batch.sampler_logp is None or rows is None:
        return batch
    return replace(batch, sampler_logp=torch.where(rows, logp.detach(), batch.sampler_logp.to(logp.dtype)))


def sum_terms(numerators: Mapping[str, Tensor], denominators: Mapping[str, float]) -> Tensor:
    """Σ numerator / denominator over the loss terms; a term whose denominator is 0 has nothing to add."""
    terms = [numerator / (denominators[name] or 1.0) for name, numerator in numerators.items()]
    return torch.stack(terms).sum()
