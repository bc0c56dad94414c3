"""4-bit weights under adapters (QLoRA), by bitsandbytes: what is asked for, refused or told to the loader."""

import torch
from transformers import BitsAndBytesConfig

from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError
from qredit.utils.extras import require_extras

DETAILS = ("bnb_4bit_quant_type", "use_bnb_nested_quant")  # under TRL's names, as load_in_4bit is


def check_four_bit(options: TrainOptions, lora: bool) -> None:
    """Refuse 4-bit weights that nothing could be trained on, or sampled with. No model needs to be loaded.

    Args:
        options: of the run.
        lora: adapters are trained, or nothing is.

    Raises:
        QreditError: without adapters; beside vLLM; details without 4-bit weights; bitsandbytes is not installed.
    """
    if not options.load_in_4bit:
        for name in DETAILS:
            if name in options.changed():
                raise QreditError(f"{name} needs load_in_4bit")
        return
    if not lora:
        raise QreditError("load_in_4bit needs lora: weights of four bits cannot be moved, adapters on them can")
    if options.training.get("use_vllm"):
        raise QreditError(
            "load_in_4bit with use_vllm is not supported: the engine would draw from other weights than those that "
            "learn. Sample with transformers: leave use_vllm out"
        )
    require_extras("load_in_4bit", "quantization")


def make_quantization_config(options: TrainOptions) -> BitsAndBytesConfig | None:
    """How the weights of linear layers are held; None is as they are. Products are computed in the run's own type.

    Args:
        options: of the run.
    """
    if not options.load_in_4bit:
        return None
    computed = torch.float16 if options.training.get("fp16") else torch.bfloat16 if options.half else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=options.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=computed,
    )
