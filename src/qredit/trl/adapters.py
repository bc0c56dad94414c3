"""Adapters on quantised weights learn in float32, as all else that is trained here."""

import torch
from torch import nn

from qredit.shared_prefix.support import unwrap_peft


def keep_adapters_exact(model: nn.Module) -> None:
    """Undo what TRL does to adapters on quantised weights: it rounds them to bfloat16, and moments after them.

    An update smaller than the rounding of a weight is then lost. Adapters on other weights stay as they were given.

    Args:
        model: with its adapters.
    """
    if getattr(unwrap_peft(model), "hf_quantizer", None) is None:
        return
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
