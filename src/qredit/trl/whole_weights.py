"""Weights that FSDP2 shards, whole for a while: processes sample numbers of tokens of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.fsdp import FSDPModule


@contextmanager
def gather_whole_weights(model: nn.Module, reshard_after_forward: bool) -> Iterator[None]:
    """Every process holds all weights inside, and its forward passes need no other process.

    Costs the memory of the whole model on each process. Any other model is left as it is.

    Args:
        model: the wrapped one. All processes enter together.
        reshard_after_forward: as FSDP2 was told to do; what holds again afterwards.
    """
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(reshard_after_forward, recurse=False)
            module.reshard()
