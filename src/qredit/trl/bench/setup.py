"""How every arm of a comparison computes: device, precision, checkpointing, adapters."""

from dataclasses import dataclass

import torch
from peft import LoraConfig

from qredit.trl.lora import make_lora
from qredit.utils.device import select_device


@dataclass(frozen=True)
class Setup:
    """What all arms have in common, so that they differ in nothing but what they are compared for.

    Attributes:
        cpu: use the CPU also where there is an accelerator.
        half: bf16 autocast, on float32 weights where they are trained. Weights under adapters are bf16 themselves:
            TRL samples with adapters outside autocast, in the precision of the weights.
        checkpointing: layers run again in the backward pass.
        lora_r: rank of adapters on all linear layers; None trains all weights.
    """

    cpu: bool = True
    half: bool = False
    checkpointing: bool = False
    lora_r: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return select_device(self.cpu)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return torch.bfloat16 if self.half and self.lora_r is not None else torch.float32

    @property
    def adapters(self) -> LoraConfig | None:
        """What a trainer is given as `peft_config`."""
        return None if self.lora_r is None else make_lora(self.lora_r)
