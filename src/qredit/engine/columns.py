"""Rows of a batch as columns, one for each field, and back: how rows and coefficients travel to the workers.

A row of a `RolloutBatch` with several right answers becomes one sequence for each, since a worker runs plain
sequences. The rationale stands in all of them and carries its coefficients in the first alone. So the sums over the
sequences, however they are cut into micro-batches, are those over the rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.objective import Credited
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.branches import find_branches

PREFIX = "qredit_"
_BATCH, _EXTRA, _CREDIT, _PENALTY = (f"{PREFIX}{kind}_" for kind in ("batch", "extra", "credit", "penalty"))
_ALWAYS = frozenset({"mask", "rationale", "answer", "sampled", "group", "sampler_logp"})
"""What surrogates and reductions read, and what a batch cannot be without."""
_LIVE = frozenset({"logp", "entropy"})
"""What the worker's own forward pass tells."""
_FEW_BYTES = {torch.bool: torch.uint8, torch.long: torch.int32}
_AS_READ = {few: whole for whole, few in _FEW_BYTES.items()}


@dataclass(frozen=True)
class Place:
    """Where the tokens of a sequence stand in the row that it is of: first `fork` columns, then those of its own.

    Attributes:
        row: number of the row.
        own: its own columns.
        fork: columns at the row's beginning that it goes on from; they carry their coefficients in another sequence.
    """

    row: int
    own: slice
    fork: int = 0

    def read(self, value: Tensor) -> Tensor:
        """What a (B, T) tensor holds of its tokens; a view of it where nothing is forked."""
        own = value[self.row, self.own]
        return torch.cat([value[self.row, : self.fork], own]) if self.fork else own


def find_places(batch: RolloutBatch) -> list[Place]:
    """The sequences of a batch, in the order of its rows and of their answers."""
    return [
        Place(number, slice(own.start, own.stop), stretch.start)
        for number, row in enumerate(find_branches(batch))
        for own, stretch in zip(row.columns, row.places, strict=True)
    ]


def gather_tokens(places: Sequence[Place], told: Sequence[Tensor], rows: Rows) -> Tensor:
    """What was told of the tokens of each sequence, (B, T): tokens that stand in several are read in the first.

    Args:
        places: of the sequences.
        told: for each sequence a number for each of its tokens.
        rows: theirs.
    """
    found = torch.zeros(rows.batch.mask.shape, dtype=torch.float32)
    for place, values in zip(places, told, strict=True):
        found[place.row, place.own] = values[place.fork :].float()
    return found


def make_columns(
    batch: RolloutBatch, credited: Credited, places: Sequence[Place], needs: Collection[str] = ()
) -> dict[str, list[Tensor]]:
    """Each field that a loss reads as a column: for each sequence a tensor with a number for each of its tokens.

    A number for a row is repeated over its tokens, so that all columns are of one kind.

    Args:
        batch: evaluated rows.
        credited: their coefficients.
        places: of the sequences.
        needs: fields that the surrogate and the terms of penalties read.
    """
    shape = batch.mask.shape
    weight = _weigh_rows(batch, credited, places)
    table = {
        **{f"{_BATCH}{name}": value for name, value in _list_fields(batch, _ALWAYS | set(needs) - _LIVE)},
        **{f"{_EXTRA}{name}": value for name, value in batch.extra.items() if name in needs},
        f"{_CREDIT}value": credited.value,
        **({} if credited.holds_ratio is None else {f"{_CREDIT}holds_ratio": credited.holds_ratio.expand(shape)}),
        **({} if credited.clip_scale is None else {f"{_CREDIT}clip_scale": credited.clip_scale}),
        **{f"{_PENALTY}{number}": value for number, value in enumerate(credited.penalties)},
    }
    spread = {
        name: _to_numbers(value[:, None].expand(shape) if value.dim() == 1 else value) for name, value in table.items()
    }
    columns: dict[str, list[Tensor]] = {name: [] for name in spread}
    for place in places:
        for name, value in spread.items():
            own = place.read(value)
            if place.fork and name.startswith((f"{_CREDIT}value", _PENALTY)):
                own[: place.fork] = 0
            columns[name].append(own)
    if weight is not None:
        columns[f"{_CREDIT}weight"] = weight
    return columns


def fill_up(
    columns: Mapping[str, Sequence[Tensor]], keys: Sequence[str], wanted: Sequence[str], lengths: Sequence[int]
) -> dict[str, list[Tensor]]:
    """The columns for sequences in another order, with zeros for those that are added to fill a batch up.

    Args:
        columns: of some sequences.
        keys: of these sequences.
        wanted: keys of all sequences, in order.
        lengths: their tokens.
    """
    where = {key: number for number, key in enumerate(keys)}
    return {
        name: [
            values[where[key]] if key in where else torch.zeros(length, dtype=values[0].dtype)
            for key, length in zip(wanted, lengths, strict=True)
        ]
        for name, values in columns.items()
    }


def _to_numbers(value: Tensor) -> Tensor:
    """In few bytes; truth values as numbers, since not every operation on ragged tensors knows them."""
    return value.to(_FEW_BYTES.get(value.dtype, value.dtype))


def _list_fields(batch: RolloutBatch, names: Collection[str]) -> list[tuple[str, Tensor]]:
    found = [(one.name, getattr(batch, one.name)) for one in fields(batch) if one.name in names]
    return [(name, value) for name, value in found if isinstance(value, Tensor)]


def _weigh_rows(batch: RolloutBatch, credited: Credited, places: Sequence[Place]) -> list[Tensor] | None:
    """The reduction's weight of each token.

    A mean over a row's tokens counts its rationale and its gold answer. A sequence that ends in another answer gets the
    weight by which its tokens count as much.
    """
    if credited.weight is None and batch.alias is None:
        return None
    weight = torch.ones(batch.mask.shape) if credited.weight is None else credited.weight
    counted = (batch.counted * weight).sum(1)
    split = batch.has_answer & (torch.zeros_like(batch.has_answer) if batch.alias is None else (batch.alias > 0).any(1))
    found, trainable = [], batch.trainable
    for place in places:
        own = place.read(weight)
        if split[place.row]:
            tokens = place.read(trainable).sum().clamp(min=1)
            own = torch.full_like(own, float(counted[place.row]) / float(tokens))
        found.append(own)
    return found


def read_columns(columns: Mapping[str, Tensor], logp: Tensor, entropy: Tensor | None) -> tuple[RolloutBatch, Credited]:
    """The batch and the coefficients that padded columns hold; those of other names are left alone.

    Args:
        columns: (B, T) by name, 0 beyond the end of a sequence.
        logp: (B, T) of the current forward pass.
        entropy: (B, T) of the current forward pass, differentiable; None where it was not asked for.
    """
    per_row = {"group", "reward", "answer_logp", "proposal"}
    own: dict[str, Tensor] = {}
    extra: dict[str, Tensor] = {}
    credit: dict[str, Tensor] = {}
    penalties: dict[int, Tensor] = {}
    for column, given in columns.items():
        value = given.to(_AS_READ.get(given.dtype, given.dtype))
        if column.startswith(_BATCH):
            name = column.removeprefix(_BATCH)
            own[name] = value[:, 0] if name in per_row else value
        elif column.startswith(_EXTRA):
            extra[column.removeprefix(_EXTRA)] = value
        elif column.startswith(_CREDIT):
            credit[column.removeprefix(_CREDIT)] = value
        elif column.startswith(_PENALTY):
            penalties[int(column.removeprefix(_PENALTY))] = value
    batch = RolloutBatch(**own, extra=extra)  # type: ignore[arg-type]
    if entropy is not None:
        batch = replace(batch, entropy=entropy)
    holds = credit.get("holds_ratio")
    return replace(batch, logp=logp.detach()), Credited(
        credit["value"],
        credit.get("weight"),
        tuple(penalties[number] for number in sorted(penalties)),
        None if holds is None else holds[:, :1],
        credit.get("clip_scale"),
    )
