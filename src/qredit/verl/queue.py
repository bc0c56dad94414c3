"""All calls of TransferQueue, which holds verl's samples: upstream may replace it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transfer_queue
from tensordict import TensorDict
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_from_nested

PADDING = "is_padding"


def fetch(batch: KVBatchMeta, names: Sequence[str]) -> Any:
    """Some fields of the samples of a batch, in its order."""
    return transfer_queue.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(names))


def read_responses(batch: KVBatchMeta, names: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """What verl's workers told of each token of a response, renamed from columns: key of a sample → (T,), T its own."""
    told = fetch(batch, [*names.values(), "response_mask"])
    each = {name: response_from_nested(told[column], told["response_mask"]).unbind() for name, column in names.items()}
    return {name: dict(zip(batch.keys, values, strict=True)) for name, values in each.items()}


def store(batch: KVBatchMeta, columns: Mapping[str, Sequence[Tensor]]) -> KVBatchMeta:
    """Keep further fields of the samples: for each of them a tensor (T,), T its own.

    Returns:
        The batch, with what it had been told beside its samples.
    """
    fields = {
        name: torch.nested.as_nested_tensor(list(values), layout=torch.jagged) for name, values in columns.items()
    }
    kept = transfer_queue.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch.keys))
    )
    kept.extra_info = batch.extra_info
    kept.tags = batch.tags
    return kept


def pick(batch: KVBatchMeta, places: Sequence[int]) -> KVBatchMeta:
    """Some samples of a batch."""
    return KVBatchMeta(
        partition_id=batch.partition_id,
        keys=[batch.keys[place] for place in places],
        tags=[batch.tags[place] for place in places],
        extra_info=dict(batch.extra_info or {}),
    )


def list_real(batch: KVBatchMeta) -> list[int]:
    """Where the samples stand that verl did not add to fill a batch up."""
    return [place for place, tag in enumerate(batch.tags) if not tag.get(PADDING, False)]
