"""Stages and how they compose: Source, Credit, chain, add, on_span, per_span.

A method of credit assignment is a rule that gives every token the number its log-probability is multiplied by. Here it
is a chain: a `Source` makes a coefficient from a batch, each `Credit` after it changes the coefficient.

    chain(reward(), center_by_group(), scale_by_group_std())        # also: reward() | center_by_group() | …
    per_span(rationale=…, answer=…)                                 # one source per span, zero elsewhere
    add(a, 0.1 * b)                                                 # also: a + 0.1 * b

Stages are frozen dataclasses in lower case, because a printed chain is the experiment's record and parses back.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import reduce
from typing import Any, ClassVar, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.field_names import DIVERGENCES, field_kind
from qredit.utils.errors import QreditError
from qredit.utils.former_names import former_names

State = dict[str, Any]


class Scope(IntEnum):
    """Which rows a stage's statistics run over. If any stage says BATCH, the whole optimiser batch is scored first.

    GENERATION is all rollouts of a generation, also where it serves several optimiser steps. They are scored once, by
    the policy that sampled them; the objective's coefficients are then fixed until the next generation.
    """

    ROW = 0
    GROUP = 1
    BATCH = 2
    GENERATION = 3


class When(IntEnum):
    """Whether a stage's result is fixed when the rollouts are made, or recomputed at every update on them."""

    ROLLOUT = 0
    UPDATE = 1


class Cadence(IntEnum):
    """When a part with state moves it, and what rows it has seen by then.

    STEP after every optimiser step, from that step's rows. GENERATION after the last step on a generation of rollouts,
    from the rows of all steps on it. BEFORE ahead of the first step on a generation, from all its rows under the policy
    that sampled them, a micro-batch at a time.
    """

    STEP = 0
    GENERATION = 1
    BEFORE = 2


FORWARD_FIELDS = frozenset(
    {
        "logp",
        "entropy",
        "answer_logp",
        "nucleus_entropy",
        "hidden",
        "prediction_error",
        "sampler_entropy",
        *DIVERGENCES,
    }
)
"""Kinds of batch fields that a forward pass tells."""


def field_kinds(needs: Iterable[str]) -> frozenset[str]:
    """The kinds of these batch fields: their names without the number or name after an @ (`field_kind`)."""
    return frozenset(map(field_kind, needs))


def infer_recompute(needs: Iterable[str]) -> When:
    """When what is made of these batch fields is fixed: fields that a forward pass tells change with every update."""
    return When.UPDATE if field_kinds(needs) & FORWARD_FIELDS else When.ROLLOUT


@dataclass(frozen=True, eq=False)
class Coefficient:
    """What the log-probability of each token is multiplied by, under the reduction's average over rows.

    Attributes:
        value: (B, 1) while it is one number per rollout, (B, T) once it differs between tokens; float64.
        keep: (B, 1) or (B, T), True = counts; where False the value ends as 0 and later statistics leave it out.
        weight: (B, 1) or (B, T) weight in the reduction's denominator; None is 1 everywhere.
        holds_ratio: (B, 1) rows whose value already holds the importance ratio of their rationale, so that a surrogate
            must not count it a second time; None is no row. A sum of sources marks a row that any of them marks. The
            surrogate `log_likelihood`, GARL's own, takes no ratio anyway: there it changes nothing.
        clip_scale: (B, 1) or (B, T) factor on the half-widths of the surrogate's trust region; None is 1 everywhere.
    """

    value: Float[Tensor, "B #T"]
    keep: Bool[Tensor, "B #T"] | None = None
    weight: Float[Tensor, "B #T"] | None = None
    holds_ratio: Bool[Tensor, "B 1"] | None = None
    clip_scale: Float[Tensor, "B #T"] | None = None

    def per_rollout(self, stage: "Stage") -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
        """The one number of each rollout and which of them count, for a stage that works on rollouts.

        Raises:
            QreditError: an earlier stage made the coefficient differ between tokens.
        """
        for part in (self.value, self.keep):
            if part is not None and part.shape[1] != 1:
                raise QreditError(
                    f"{stage} works on one number per rollout, but an earlier stage made it differ between tokens; "
                    "put it before that stage"
                )
        value = self.value[:, 0]
        keep = torch.ones_like(value, dtype=torch.bool) if self.keep is None else self.keep[:, 0]
        return value, keep

    def with_row(self, value: Float[Tensor, " B"]) -> "Coefficient":
        """The same with one new number per rollout."""
        return replace(self, value=value[:, None])

    def set_rollouts(self, rows: Bool[Tensor, " B"], value: float, batch: RolloutBatch) -> "Coefficient":
        """The same with one number on the own tokens of some rollouts, once for each; these count from here on.

        The other row of such a rollout, that of its gold answer, is left out there. Where tokens have numbers of their
        own, those of gold answers keep theirs.

        Args:
            rows: which rollouts, on each of their rows.
            value: the number.
            batch: of the rows.
        """
        chosen = rows[:, None] if self.value.shape[1] == 1 else rows[:, None] & ~batch.answer
        counted = batch.drawn_rows[:, None].expand_as(chosen)
        keep = torch.ones_like(chosen) if self.keep is None else self.keep
        own = torch.where(chosen & counted, value, self.value)
        return replace(self, value=own, keep=torch.where(chosen, counted, keep))

    def spread(self, batch: RolloutBatch) -> Float[Tensor, "B T"]:
        """The value at every position, 0 where it does not count."""
        value = self.value.expand(batch.mask.shape)
        counts = batch.mask if self.keep is None else batch.mask & self.keep
        return torch.where(counts, value, torch.zeros_like(value))


@dataclass(frozen=True)
class Walk:
    """Where an evaluation stands in the tree of stages, and what it hands in and collects on the way.

    Attributes:
        place: names of the combinators passed, as printed before a stage's name.
        state: explicit state of stateful stages, by place.
        within: (B, T) the span that the stages below act on; None is everywhere.
        seen: filled with place → (stage, its coefficient, the span it acted on), leaf by leaf.
        statistics: filled with place → sums that stateful stages update from.
    """

    place: str = ""
    state: Mapping[str, State] = field(default_factory=dict)
    within: Bool[Tensor, "B T"] | None = None
    seen: "dict[str, tuple[Stage, Coefficient, Tensor | None]] | None" = None
    statistics: dict[str, State] | None = None

    def under(self, name: str, span: Bool[Tensor, "B T"] | None = None) -> "Walk":
        within = self.within if span is None else span if self.within is None else span & self.within
        return replace(self, place=f"{self.place}{name}", within=within)

    def note(self, stage: "Stage", coefficient: Coefficient) -> Coefficient:
        if self.seen is not None:
            self.seen[self.place] = (stage, coefficient, self.within)
        return coefficient


class Requirements:
    """What a part of an objective says of itself: what it needs, where its statistics run, when it is computed."""

    @property
    def needs(self) -> frozenset[str]:
        """Names of the batch fields read."""
        return frozenset()

    @property
    def needs_off_policy(self) -> frozenset[str]:
        """Names of further batch fields that are read where the rollouts were drawn under other parameters."""
        return frozenset()

    @property
    def scope(self) -> Scope:
        """Rows that the stage's statistics run over."""
        return Scope.ROW

    @property
    def when(self) -> When:
        """When the result is fixed. No stage needs to state it, because it follows from `needs`.

        UPDATE where `needs`, on or off policy, has a field of `FORWARD_FIELDS`, which every forward pass makes anew;
        else ROLLOUT. So `reward()` is fixed when rollouts are made, and `amplified_likelihood(q)`, which reads
        `answer_logp`, is evaluated at every update.
        """
        return infer_recompute(self.needs | self.needs_off_policy)


class Stage(Requirements, ABC):  # what Source and Credit share; neither has the other's signature
    """What Source and Credit share.

    `scales_clip` tells that a stage sets `Coefficient.clip_scale`.
    """

    scales_clip: ClassVar[bool] = False

    def children(self) -> Iterator[tuple[str, "Stage"]]:
        """The stages inside this one, each with the name that leads to it."""
        return iter(())


class Source(Stage):
    """Makes a coefficient from a batch. Subclass with a frozen dataclass and `__call__`."""

    @abstractmethod
    def __call__(self, batch: RolloutBatch) -> Coefficient:
        """The coefficient of `batch`."""

    def run(self, batch: RolloutBatch, walk: Walk) -> Coefficient:
        """`__call__`, noted on the walk; combinators override it to walk their parts."""
        return walk.note(self, self(batch))

    def __or__(self, credit: "Credit") -> "Source":
        return chain(self, credit)

    def __add__(self, other: "Source") -> "Source":
        return add(self, other)

    def __rmul__(self, weight: float) -> "Source":
        return _scaled(weight, self)

    __mul__ = __rmul__


class Credit(Stage):
    """Changes a coefficient; the batch is context. Subclass with a frozen dataclass and `__call__`."""

    @abstractmethod
    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        """The new coefficient."""

    def run(self, coefficient: Coefficient, batch: RolloutBatch, walk: Walk) -> Coefficient:
        """`__call__`, noted on the walk; combinators override it to walk their parts.

        Args:
            coefficient: as the stages before made it: value (B, 1) or (B, T), float64.
            batch: whole groups, with the fields that are needed.
            walk: where the evaluation stands, and what it collects.
        """
        return walk.note(self, self(coefficient, batch))

    def __or__(self, credit: "Credit") -> "Credit":
        return _then((self, credit))


class Stateful(Requirements, ABC):
    """What parts with explicit state share: a credit such as a running mean, a penalty such as an adapted strength.

    The engine sums `statistics` over micro-batches and processes, then calls `update` once for each step or generation,
    as `cadence` says; the state is checkpointed. A part never keeps anything on itself.
    """

    cadence = Cadence.STEP

    @abstractmethod
    def init(self) -> State:
        """State before the first step: numbers and lists only, so that it is saved as JSON."""

    @abstractmethod
    def update(self, state: State, statistics: State) -> State:
        """The next state, given the summed statistics."""

    def settled(self, state: State) -> bool:
        """Whether no statistics would change this state any more."""
        return False


class StatefulCredit(Stateful, Credit):
    """A credit that carries state."""

    @abstractmethod
    def statistics(self, coefficient: Coefficient, batch: RolloutBatch) -> State:
        """What `update` needs of this batch, as numbers that are summed over batches."""

    @abstractmethod
    def apply(self, coefficient: Coefficient, batch: RolloutBatch, state: State) -> Coefficient:
        """The new coefficient, given the state.

        Args:
            coefficient: as the stages before made it: value (B, 1) or (B, T), float64.
            batch: whole groups, with the fields that are needed.
            state: as `init` or `update` made it.
        """

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        return self.apply(coefficient, batch, self.init())

    def run(self, coefficient: Coefficient, batch: RolloutBatch, walk: Walk) -> Coefficient:
        if walk.statistics is not None:
            walk.statistics[walk.place] = self.statistics(coefficient, batch)
        state = walk.state.get(walk.place, self.init())
        return walk.note(self, self.apply(coefficient, batch, state))


class _Combinator(Stage):
    """needs, scope and when of a combinator: the union, the widest, the latest of its parts."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset[str]().union(*(child.needs for _, child in self.children()))

    @property
    def needs_off_policy(self) -> frozenset[str]:
        return frozenset[str]().union(*(child.needs_off_policy for _, child in self.children()))

    @property
    def scope(self) -> Scope:
        return max((child.scope for _, child in self.children()), default=Scope.ROW)

    @property
    def when(self) -> When:
        return max((child.when for _, child in self.children()), default=When.ROLLOUT)


class _CombinedSource(_Combinator, Source):
    """A source made of stages: called, it is a run from the root."""

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        return self.run(batch, Walk())


class _CombinedCredit(_Combinator, Credit):
    """A credit made of stages: called, it is a run from the root."""

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        return self.run(coefficient, batch, Walk())


@dataclass(frozen=True, repr=False)
class _chain(_CombinedSource):
    source: Source
    credits: tuple[Credit, ...]

    def children(self) -> Iterator[tuple[str, Stage]]:
        for number, stage in enumerate((self.source, *self.credits)):
            yield f"{number}.", stage

    def run(self, batch: RolloutBatch, walk: Walk) -> Coefficient:
        coefficient = self.source.run(batch, walk.under("0."))
        for number, credit in enumerate(self.credits, start=1):
            coefficient = credit.run(coefficient, batch, walk.under(f"{number}."))
        return coefficient

    def __repr__(self) -> str:
        return " | ".join(map(repr, (self.source, *self.credits)))


@dataclass(frozen=True, repr=False)
class _then(_CombinedCredit):
    """Several credits, one after the other, as one credit."""

    credits: tuple[Credit, ...]

    def children(self) -> Iterator[tuple[str, Stage]]:
        for number, stage in enumerate(self.credits):
            yield f"{number}.", stage

    def run(self, coefficient: Coefficient, batch: RolloutBatch, walk: Walk) -> Coefficient:
        for number, credit in enumerate(self.credits):
            coefficient = credit.run(coefficient, batch, walk.under(f"{number}."))
        return coefficient

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.credits))


def chain(source: Source, *credits: Credit) -> Source:
    """The source followed by the credits, again a source. `chain(a, b, c)` is `a | b | c`."""
    if not isinstance(source, Source):
        raise QreditError(f"a chain starts with a source (such as reward() or amplified_likelihood(q=…)), got {source}")
    flat: list[Credit] = []
    for credit in credits:
        if not isinstance(credit, Credit):
            raise QreditError(f"after its source a chain holds credits, got {credit}")
        flat.extend(credit.credits if isinstance(credit, _then) else (credit,))
    if isinstance(source, _chain):
        return _chain(source.source, (*source.credits, *flat))
    return _chain(source, tuple(flat)) if flat else source


@dataclass(frozen=True, repr=False)
class _scaled(_CombinedSource):
    """A source times a constant: `0.1 * source`."""

    factor: float
    source: Source

    def children(self) -> Iterator[tuple[str, Stage]]:
        yield "", self.source

    def run(self, batch: RolloutBatch, walk: Walk) -> Coefficient:
        inner = self.source.run(batch, walk)
        return replace(inner, value=self.factor * inner.value)

    def __repr__(self) -> str:
        inner = f"({self.source!r})" if isinstance(self.source, _chain | _add) else repr(self.source)
        return f"{self.factor!r} * {inner}"


@dataclass(frozen=True, repr=False)
class _add(_CombinedSource):
    sources: tuple[Source, ...]

    def children(self) -> Iterator[tuple[str, Stage]]:
        for number, source in enumerate(self.sources):
            yield f"+{number}.", source

    def run(self, batch: RolloutBatch, walk: Walk) -> Coefficient:
        total: Tensor | None = None
        holds: Tensor | None = None
        scale: Tensor | None = None
        keeps: list[Tensor | None] = []
        for number, source in enumerate(self.sources):
            part = source.run(batch, walk.under(f"+{number}."))
            if part.weight is not None:
                raise QreditError(f"{source} changes the reduction's denominator and cannot be added to other sources")
            value = (
                part.value if part.keep is None else torch.where(part.keep, part.value, torch.zeros_like(part.value))
            )
            total = value if total is None else total + value
            holds = _union(holds, part.holds_ratio)
            scale = _multiply(scale, part.clip_scale)
            keeps.append(part.keep)
        assert total is not None
        masks = [keep for keep in keeps if keep is not None]
        keep = reduce(torch.logical_or, masks) if len(masks) == len(keeps) else None
        return Coefficient(total, keep=keep, holds_ratio=holds, clip_scale=scale)

    def __repr__(self) -> str:
        return " + ".join(f"({s!r})" if isinstance(s, _chain) else repr(s) for s in self.sources)


def add(*sources: Source) -> Source:
    """The sum of sources: `add(a, 0.1 * b)`, also written `a + 0.1 * b`.

    Where one keeps nothing it adds 0; where none keeps anything, neither does the sum.
    """
    for source in sources:
        if not isinstance(source, Source):
            raise QreditError(f"add sums sources, got {source}; of an objective, take its .source")
    flat = [part for source in sources for part in (source.sources if isinstance(source, _add) else (source,))]
    return _add(tuple(flat))


@dataclass(frozen=True, repr=False)
class _tempered(_CombinedSource):
    """A source that reads w^power where it would read w."""

    power: float
    source: Source

    def children(self) -> Iterator[tuple[str, Stage]]:
        yield "", self.source

    def run(self, batch: RolloutBatch, walk: Walk) -> Coefficient:
        return self.source.run(temper_likelihood(batch, self.power), walk)

    def __repr__(self) -> str:
        return f"tempered({self.power!r}, {self.source!r})"


def tempered(power: float, source: Source) -> Source:
    """The source, given w^power in place of every likelihood w: `tempered(0.1, amplified_likelihood(q=0.75))`.

    This is another objective. With P_τ = E[w^τ] in the place of P = E[w], the coefficient on the answer's tokens is
    τ times what the source makes, since ∇w^τ = τ·w^τ·∇log w: `0.1 * tempered(0.1, …)`. τ = 1/|y| is the geometric mean
    of the answer's token probabilities.

    Raises:
        QreditError: a power outside (0, 1].
    """
    if not isinstance(source, Source):
        raise QreditError(f"tempered takes a source, got {source}")
    if isinstance(power, bool) or not isinstance(power, int | float) or not 0 < power <= 1:
        raise QreditError(f"the power of a tempered likelihood must be above 0 and at most 1, got {power!r}")
    return _tempered(power, source)


def temper_likelihood(batch: RolloutBatch, power: float) -> RolloutBatch:
    """The batch with w^power in place of w."""
    return batch if batch.answer_logp is None else replace(batch, answer_logp=power * batch.answer_logp)


def find_power(stage: Stage) -> float:
    """The first power by which a likelihood inside `stage` is tempered; 1 where none is."""
    if isinstance(stage, _tempered):
        return stage.power
    return next((power for _, child in stage.children() if (power := find_power(child)) != 1.0), 1.0)


@dataclass(frozen=True, repr=False)
class _on_span_source(_CombinedSource):
    span: str
    inner: Source

    def children(self) -> Iterator[tuple[str, Stage]]:
        yield f"{self.span}/", self.inner

    def run(self, batch: RolloutBatch, walk: Walk) -> Coefficient:
        where = batch.span(self.span)
        inner = self.inner.run(batch, walk.under(f"{self.span}/", where))
        scale = _select(where, inner.clip_scale, None, 1.0)
        return replace(inner, value=torch.where(where, inner.value, 0.0), clip_scale=scale)

    def __repr__(self) -> str:
        return f"on_span({self.span!r}, {self.inner!r})"


@dataclass(frozen=True, repr=False)
class _on_span_credit(_CombinedCredit):
    span: str
    inner: Credit

    def children(self) -> Iterator[tuple[str, Stage]]:
        yield f"{self.span}/", self.inner

    def run(self, coefficient: Coefficient, batch: RolloutBatch, walk: Walk) -> Coefficient:
        where = batch.span(self.span)
        inside = self.inner.run(coefficient, batch, walk.under(f"{self.span}/", where))
        return Coefficient(
            value=torch.where(where, inside.value, coefficient.value),
            keep=_select(where, inside.keep, coefficient.keep, True),
            weight=_select(where, inside.weight, coefficient.weight, 1.0),
            holds_ratio=_union(inside.holds_ratio, coefficient.holds_ratio),
            clip_scale=_select(where, inside.clip_scale, coefficient.clip_scale, 1.0),
        )

    def __repr__(self) -> str:
        return f"on_span({self.span!r}, {self.inner!r})"


def _select(where: Tensor, inside: Tensor | None, outside: Tensor | None, default: float) -> Tensor | None:
    if inside is None and outside is None:
        return None
    known = inside if inside is not None else outside
    assert known is not None
    full = torch.full_like(known, default)
    return torch.where(where, full if inside is None else inside, full if outside is None else outside)


def _multiply(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The product of factors, of which None is 1."""
    return other if one is None else one if other is None else one * other


def _union(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Rows that either marks."""
    return other if one is None else one if other is None else one | other


@overload
def on_span(span: str, stage: Source) -> Source: ...
@overload
def on_span(span: str, stage: Credit) -> Credit: ...
def on_span(span: str, stage: Source | Credit) -> Source | Credit:
    """The stage, confined to one span of the batch (rationale, answer, response, sampled, close, …).

    A source is 0 outside the span; a credit leaves the coefficient outside the span as it was.

    Raises:
        QreditError: on use, when the batch has no such span; it lists those it has.
    """
    if isinstance(stage, Source):
        return _on_span_source(span, stage)
    if isinstance(stage, Credit):
        return _on_span_credit(span, stage)
    raise QreditError(f"on_span takes a source or a credit, got {stage}")


@dataclass(frozen=True, repr=False)
class _per_span(_CombinedSource):
    spans: tuple[tuple[str, Source], ...]

    def children(self) -> Iterator[tuple[str, Stage]]:
        for span, source in self.spans:
            yield f"{span}/", source

    def run(self, batch: RolloutBatch, walk: Walk) -> Coefficient:
        value = torch.zeros(batch.mask.shape, dtype=torch.float64, device=batch.mask.device)
        keep = torch.ones_like(batch.mask)
        covered = torch.zeros_like(batch.mask)
        holds: Tensor | None = None
        scale: Tensor | None = None
        for span, source in self.spans:
            where = batch.span(span)
            if bool((covered & where).any()):
                raise QreditError(f"per_span: '{span}' overlaps an earlier span in this batch")
            covered = covered | where
            part = source.run(batch, walk.under(f"{span}/", where))
            if part.weight is not None:
                raise QreditError(f"{source} changes the reduction's denominator and cannot stand inside per_span")
            value = torch.where(where, part.value, value)
            keep = keep if part.keep is None else torch.where(where, part.keep, keep)
            holds = _union(holds, part.holds_ratio)
            scale = _select(where, part.clip_scale, scale, 1.0)
        return Coefficient(value, keep=keep, holds_ratio=holds, clip_scale=scale)

    def __repr__(self) -> str:
        return f"per_span({', '.join(f'{span}={source!r}' for span, source in self.spans)})"


def per_span(**sources: Source) -> Source:
    """One source for each named span, 0 elsewhere: `per_span(rationale=…, answer=…)`. Spans must not overlap."""
    for span, source in sources.items():
        if not isinstance(source, Source):
            raise QreditError(f"per_span takes sources, got {source} for '{span}'")
    return _per_span(tuple(sources.items()))


def named_stages(stage: Stage, place: str = "") -> Iterator[tuple[str, Stage]]:
    """Every leaf stage inside `stage` with its place in the tree, in order of evaluation."""
    inner = list(stage.children())
    if not inner:
        yield place, stage
    for name, child in inner:
        yield from named_stages(child, place + name)


__getattr__ = former_names(
    __name__, {"Declared": "Requirements", "kinds": "field_kinds", "when_read": "infer_recompute"}
)
