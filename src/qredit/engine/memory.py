"""How many rows one forward and backward pass may hold: measured on the model at hand, not guessed."""

from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

SHARE = 0.6  # of the memory that is free; the rest is for the backward pass's own needs and for fragments


def measure_bytes_per_token(
    run: Callable[[], Tensor], tokens: int, device: torch.device, model: nn.Module, unsharded: bool = True
) -> float:
    """What a forward pass holds for its backward pass, divided by its tokens.

    On an accelerator the peak of both passes is measured, with gradients into memory of their own; elsewhere, and where
    weights are sharded, the tensors that autograd saves are counted, each storage once and parameters not at all.

    Args:
        run: a small forward pass; its result is differentiable.
        tokens: how many tokens it computes.
        device: where the tensors lie.
        model: whose parameters are not counted.
        unsharded: whether all weights lie whole on this process. A backward pass on shards exchanges gradients.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda" and unsharded:
            return _peak(run, model, device) / tokens
        return _saved(run, {get_local(p).untyped_storage().data_ptr() for p in model.parameters()}) / tokens


def _peak(run: Callable[[], Tensor], model: nn.Module, device: torch.device) -> float:
    torch.cuda.reset_peak_memory_stats(device)
    level = torch.cuda.memory_allocated(device)
    wanted = [p for p in model.parameters() if p.requires_grad]
    torch.autograd.grad(run().sum(), wanted, allow_unused=True)
    gradients = sum(p.numel() * p.element_size() for p in wanted)
    return float(max(torch.cuda.max_memory_allocated(device) - level - gradients, 1))


def get_local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _saved(run: Callable[[], Tensor], known: set[int]) -> float:
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Sharded weights are gathered for the pass into parameters that the model does not hold before.
        gathered = isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter)
        if storage.data_ptr() not in known and not gathered:
            sizes[storage.data_ptr()] = storage.nbytes()
        # Without its graph: a node that holds its own output through Python is a cycle that no collector sees, and the
        # pass would lie in memory for as long as the process runs.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), torch.enable_grad():
        held = run()
    del held
    return float(max(sum(sizes.values()), 1))


def get_free_bytes(device: torch.device) -> float:
    """Memory that a pass may use, in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return SHARE * (free + cached)
    return SHARE * float(psutil.virtual_memory().available)


def estimate_optimizer_bytes(model: nn.Module, optimizer: Any) -> float:
    """Bytes that training takes after its first step and does not hold before: gradients, and two moments of Adam."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    size = float(sum(p.numel() * p.element_size() for p in wanted))
    moments = 0.0 if optimizer is not None and optimizer.state else 2 * size
    return moments + (0.0 if any(p.grad is not None for p in wanted) else size)


def count_key_bytes(config: Any, size: int) -> int:
    """Bytes of a token's keys and values in all layers.

    Args:
        config: of the text model.
        size: bytes of a number.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * size)


def count_fitting_rows(tokens: int, prompt: int, completion: int, group: int) -> int:
    """The most rows whose tokens, with the prompt of every group begun, number no more than `tokens`; at least 1.

    Args:
        tokens: that a pass may hold.
        prompt: tokens of a prompt.
        completion: tokens of a completion.
        group: rows that share a prompt.
    """
    whole, rest = divmod(tokens, prompt + group * completion)
    return max(whole * group + max(rest - prompt, 0) // max(completion, 1), 1)
