"""The LoRA adapters that are trained where nothing else is asked for."""

from peft import LoraConfig


def make_lora(r: int) -> LoraConfig:
    """Adapters of one rank on all linear layers but the head, scaled by 2.

    Args:
        r: the rank.
    """
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", task_type="CAUSAL_LM")
