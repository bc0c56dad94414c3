"""The weights of a policy as an engine takes them: whole, by transformers' names, with adapters merged in."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_BASE, _SAVED, _ORIGINAL = ".base_layer.", ".modules_to_save.default.", ".original_module."
_WRAPPERS = ("_checkpoint_wrapped_module.", "_fsdp_wrapped_module.", "_orig_mod.")
_PEFT = "base_model.model."


@torch.no_grad()
def iterate_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each parameter once, tied ones too, under the name that it has in a checkpoint.

    With LoRA the adapters are merged into one layer at a time while it is handed out. The base weights are then put
    back bit for bit: taking an adapter out again by subtraction would leave its rounding in them at every push.
    Parameters that are sharded are gathered, so every process has to go through all of them.

    Args:
        model: the unwrapped policy, a PEFT model or not.
    """
    prefix = getattr(model, "prefix", None)  # of adapters' parameters, such as lora_
    layers = dict(model.named_modules()) if prefix is not None else {}
    for name, parameter in model.named_parameters():
        if prefix is not None and (f".{prefix}" in name or _ORIGINAL in name):
            continue
        owner = layers[name.rsplit(_BASE, 1)[0]] if prefix is not None and _BASE in name else None
        with contextlib.nullcontext() if owner is None else _merged(owner):
            yield clean_name(name), _whole(parameter)


def clean_name(name: str) -> str:
    """A parameter's name without what wrappers and adapters put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name.removeprefix(_PEFT).replace(_BASE, ".").replace(_SAVED, ".")


def _whole(parameter: Any) -> Tensor:
    gathered: Tensor = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return gathered.detach()


@contextlib.contextmanager
def _merged(layer: Any) -> Iterator[None]:
    """A PEFT layer with its active adapters in its weights, which are as before afterwards."""
    base = layer.get_base_layer()
    before = {name: parameter.data.clone() for name, parameter in base.named_parameters(recurse=False)}
    layer.merge()
    try:
        yield
    finally:
        layer.unmerge()
        for name, value in before.items():
            getattr(base, name).data.copy_(value)
