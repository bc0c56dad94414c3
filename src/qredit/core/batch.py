"""RolloutBatch: rows that are learned from, those of a micro-batch or of a whole step.

Shape legend, used in every signature of the package:

    B   rows; a row is one rollout with one tail (its sampled answer ŷ, or the right answers appended as ids)
    T   completion positions: rationale z, closing string, tail; the prompt is not among them
    G   groups; a group holds the rollouts of one prompt
    M   rows of a group
    A   right answers of a row: the gold answer y*, and perhaps its aliases

Masks are True = counts. Likelihoods are natural logarithms (nats) at temperature 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.field_names import FieldDict, resolve_field_name
from qredit.stats.groups import Groups
from qredit.utils.errors import QreditError

SPANS = ("rationale", "answer", "close", "response", "sampled", "observation")
_SPANS = ("mask", *SPANS)
_PER_ROW = ("reward", "answer_logp", "rollout", "proposal")
_PER_TOKEN = ("ids", "turn", "logp", "sampler_logp", "entropy", "alias", "answer_share")
_UNLESS_GIVEN: Mapping[str, float] = {"alias": 0, "answer_share": 1.0}  # what None stands for, on every token
_LOGP_SLACK = 1e-3  # a log-likelihood may exceed 0 by rounding, not by more


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """Rollouts of whole groups, validated once, at construction; change one with `dataclasses.replace`.

    Attributes:
        mask: (B, T) tokens that exist (not padding).
        rationale: (B, T) z: every sampled token up to and including the sampled end of thinking.
        answer: (B, T) y*: the gold answer appended as ids, teacher-forced: seam, answer and end-of-answer token. With
            aliases, all right answers one behind the other; each continues the rationale, and none sees another.
        group: (B,) any integer; rows with the same one are rollouts of one prompt.
        ids: (B, T) token ids.
        close: (B, T) the string that ends thinking; sampled (then also in `rationale`) or forced (then not).
        response: (B, T) ŷ: the sampled answer.
        sampled: (B, T) tokens drawn from the policy. Default: `mask` outside `answer` and `observation`. A forced
            closing token is False.
        observation: (B, T) text that a tool or an environment wrote: it conditions what follows, is neither sampled nor
            trained, and never carries a coefficient.
        turn: (B, T) number of the turn that a token belongs to.
        rollout: (B,) given when a rationale stands in two rows, once with ŷ and once with y*: rows of one rationale
            share the number.
        proposal: (B,) bool, rows whose rationale was drawn from the proposal, the policy shown the gold answer, and not
            from the plain prompt that all rows stand behind. None is no row.
        alias: (B, T) which right answer an answer token belongs to: 0 the gold answer, 1, 2, … its aliases; 0 on all
            other tokens. None: every row has one right answer.
        answer_share: (B, T) on an answer token s_j = p(y_j|x,z) / Σ_k p(y_k|x,z), y_j the right answer that it belongs
            to; 1 on all others. It multiplies the coefficient of answer tokens, as ∇log w = Σ_j s_j ∇log p(y_j|x,z).
            None is 1 everywhere.
        seed: all randomness of a stage is a function of (seed, group).
        reward: (B,) NaN = not scored: the row is left out of its group's statistics and gets coefficient 0.
        answer_logp: (B,) log w, the log-likelihood of the gold answer, or of any of the right answers where there are
            aliases (`qredit.core.right_answers`), in nats; -inf allowed. Read only in rows that have an answer.
        logp: (B, T) log-probability of each token under the current parameters, without gradient.
        sampler_logp: (B, T) log-probability of each sampled token under the parameters that sampled it; None when they
            are the current ones.
        entropy: (B, T) entropy of the next-token distribution that each token was drawn from, in nats.
        extra: further (B,), (B, T) or (B, T, …) fields by name, for stages that need them.

    Raises:
        QreditError: a field of the wrong shape or type, a span outside the mask, overlapping tails, an alias outside
            `answer`, a NaN or positive log-likelihood.
    """

    mask: Bool[Tensor, "B T"]
    rationale: Bool[Tensor, "B T"]
    answer: Bool[Tensor, "B T"]
    group: Int[Tensor, " B"]
    ids: Int[Tensor, "B T"] | None = None
    close: Bool[Tensor, "B T"] | None = None
    response: Bool[Tensor, "B T"] | None = None
    sampled: Bool[Tensor, "B T"] = None  # type: ignore[assignment]  # filled in at construction
    observation: Bool[Tensor, "B T"] | None = None
    turn: Int[Tensor, "B T"] | None = None
    rollout: Int[Tensor, " B"] | None = None
    proposal: Bool[Tensor, " B"] | None = None
    alias: Int[Tensor, "B T"] | None = None
    answer_share: Float[Tensor, "B T"] | None = None
    seed: int | None = None
    reward: Float[Tensor, " B"] | None = None
    answer_logp: Float[Tensor, " B"] | None = None
    logp: Float[Tensor, "B T"] | None = None
    sampler_logp: Float[Tensor, "B T"] | None = None
    entropy: Float[Tensor, "B T"] | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sampled is None:
            written = self.answer if self.observation is None else self.answer | self.observation
            object.__setattr__(self, "sampled", self.mask & ~written)
        object.__setattr__(
            self, "extra", FieldDict({resolve_field_name(name): value for name, value in self.extra.items()})
        )
        if self.seed is not None:
            object.__setattr__(self, "seed", int(self.seed))
        self._check_shapes()
        self._check_spans()
        self._check_values()

    def _check_shapes(self) -> None:
        if self.mask.dim() != 2:
            raise QreditError(f"mask must be (B, T), got shape {tuple(self.mask.shape)}")
        rows, width = self.mask.shape
        expected = dict.fromkeys(_SPANS + _PER_TOKEN, (rows, width)) | dict.fromkeys((*_PER_ROW, "group"), (rows,))
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise QreditError(f"{name} must have shape {shape} like the mask, got {tuple(value.shape)}")
            if name in _SPANS and value is not None and value.dtype != torch.bool:
                raise QreditError(f"{name} must be a bool tensor (True = counts), got {value.dtype}")
        for name, value in self.extra.items():
            if tuple(value.shape) != (rows,) and tuple(value.shape[:2]) != (rows, width):
                raise QreditError(f"extra field '{name}' must be (B,) or (B, T, …), got {tuple(value.shape)}")

    def _check_spans(self) -> None:
        for name in SPANS:
            span = getattr(self, name)
            if span is not None and bool((span & ~self.mask).any()):
                raise QreditError(f"{name} marks positions that the mask leaves out")
        for name in ("rationale", "response", "sampled"):
            span = getattr(self, name)
            if span is not None and bool((span & self.answer).any()):
                raise QreditError(
                    f"{name} and answer overlap: the gold answer's tokens are teacher-forced, not sampled"
                )

        if self.alias is not None and bool((self.alias[~self.answer] != 0).any()):
            raise QreditError("alias numbers the right answers, and must be 0 on tokens outside answer")
        if self.observation is not None:
            for name in ("sampled", "answer"):
                if bool((getattr(self, name) & self.observation).any()):
                    raise QreditError(f"observation and {name} overlap: an observation is neither sampled nor trained")

    def _check_values(self) -> None:
        if self.answer_logp is None:
            return
        scored = self.answer_logp[self.has_answer]
        if bool(scored.isnan().any()):
            row = int((self.answer_logp.isnan() & self.has_answer).nonzero()[0, 0])
            raise QreditError(f"answer_logp is NaN in row {row}; a log-likelihood is a number ≤ 0 or -inf")
        if bool((scored > _LOGP_SLACK).any()):
            raise QreditError(
                f"answer_logp must be a log-likelihood ≤ 0 (nats), got {float(scored.max()):.4g}; "
                "was a negative log-likelihood passed?"
            )

    @cached_property
    def groups(self) -> Groups:
        """Where each row stands among the groups."""
        return Groups.of(self.group)

    @cached_property
    def has_answer(self) -> Bool[Tensor, " B"]:
        """Rows whose tail is the gold answer."""
        return self.answer.any(1)

    @cached_property
    def trainable(self) -> Bool[Tensor, "B T"]:
        """Tokens that may carry a coefficient: drawn from the policy, or of the gold answer. Forced tokens may not."""
        return self.sampled | self.answer

    @cached_property
    def counted(self) -> Bool[Tensor, "B T"]:
        """Trainable tokens that denominators count: a rollout counts the same however many right answers it has."""
        return self.trainable if self.alias is None else self.trainable & (self.alias == 0)

    @cached_property
    def answer_length(self) -> Float[Tensor, " B"]:
        """Tokens of the right answer, in the mean over them by their shares; 0 without one."""
        if self.answer_share is None:
            return self.answer.sum(1).double()
        return torch.where(self.answer, self.answer_share.double(), 0.0).sum(1)

    @cached_property
    def drawn_rows(self) -> Bool[Tensor, " B"]:
        """One row of each rollout, that of its sampled answer: a gold answer's row alone where it has no other.

        What is said of a rollout's own tokens stands on these rows, so that two that share a rationale say it once.
        """
        if self.rollout is None:
            return torch.ones_like(self.has_answer)
        rows = Groups.of(self.rollout)
        return rows.slot == rows.dense((~self.has_answer).long(), -1).argmax(1)[rows.index]

    @cached_property
    def drawn_once(self) -> Bool[Tensor, "B T"]:
        """Sampled tokens, each once: of two rows that share a rationale, those of the sampled answer's row."""
        return self.sampled & self.drawn_rows[:, None]

    @property
    def rollouts(self) -> int:
        """Number of rollouts: rows, with two tails of one rationale counted once."""
        return self.mask.shape[0] if self.rollout is None else int(self.rollout.unique().numel())

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the fields this batch holds."""
        named = (f.name for f in fields(self) if f.name != "extra" and getattr(self, f.name) is not None)
        return (*named, *self.extra)

    def select(self, rows: slice | Tensor) -> "RolloutBatch":
        """Some of the rows; groups need not stay whole."""
        changes: dict[str, Any] = {
            f.name: getattr(self, f.name)[rows] for f in fields(self) if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **changes, extra={name: value[rows] for name, value in self.extra.items()})

    def to(self, device: torch.device | str) -> "RolloutBatch":
        """The same on another device."""
        changes: dict[str, Any] = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **changes, extra={name: value.to(device) for name, value in self.extra.items()})

    def span(self, name: str) -> Bool[Tensor, "B T"]:
        """The bool (B, T) field called `name`, of the batch's own or among `extra`."""
        choices = [n for n in self.present if self._field(n).dtype == torch.bool and self._field(n).dim() == 2]
        if name not in choices:
            raise QreditError(f"no span '{name}'; this batch has {', '.join(map(repr, sorted(choices)))}")
        return self._field(name)

    def require(self, name: str, wanted_by: str) -> Tensor:
        """The tensor field called `name`, for the stage printed as `wanted_by`."""
        name = resolve_field_name(name)
        if name not in self.present:
            raise QreditError(f"{wanted_by} needs the batch field '{name}'; this batch has {', '.join(self.present)}")
        return self._field(name)

    def _field(self, name: str) -> Tensor:
        value = self.extra[name] if name in self.extra else getattr(self, name)
        return value if isinstance(value, Tensor) else torch.as_tensor(value)


def concatenate(batches: Sequence[RolloutBatch]) -> RolloutBatch:
    """The rows of several batches in one, padded to the widest; fields that all of them hold, and the first's seed.

    Rollout numbers are made distinct between the batches, and a batch without any has a rollout in each row. Group ids
    are kept, so equal ids become one group.
    """
    width = max(batch.mask.shape[1] for batch in batches)
    shared = set(batches[0].present).intersection(*(batch.present for batch in batches)) - {"seed", "rollout"}
    shared |= {name for name in _UNLESS_GIVEN if any(name in batch.present for batch in batches)}

    def joined(name: str) -> Tensor:
        return torch.cat([_pad_columns(_or_default(batch, name), width) for batch in batches])

    own = {f.name for f in fields(RolloutBatch)}
    values: dict[str, Any] = {name: joined(name) for name in shared & own}
    if any(batch.rollout is not None for batch in batches):
        values["rollout"] = torch.cat([_offset_rollouts(batch, n) for n, batch in enumerate(batches)])
    return RolloutBatch(seed=batches[0].seed, extra={name: joined(name) for name in shared - own}, **values)


def _or_default(batch: RolloutBatch, name: str) -> Tensor:
    """A field, or what its absence stands for."""
    if name in _UNLESS_GIVEN and getattr(batch, name) is None:
        like = torch.long if name == "alias" else torch.float64
        return torch.full(batch.mask.shape, _UNLESS_GIVEN[name], dtype=like, device=batch.mask.device)
    return batch._field(name)


def _pad_columns(value: Tensor, width: int) -> Tensor:
    beyond = (0, 0) * (value.dim() - 2)
    return value if value.dim() == 1 else torch.nn.functional.pad(value, (*beyond, 0, width - value.shape[1]))


def _offset_rollouts(batch: RolloutBatch, number: int) -> Tensor:
    own = torch.arange(len(batch.mask), device=batch.mask.device) if batch.rollout is None else batch.rollout
    return own + (number << 32)
