"""Environment variables that would compute otherwise than the training arguments say: refused by name.

One rule: what an argument says, it says alone, so a variable that changes it is refused. What no argument says
(processes, sharding by accelerate's FSDP or DeepSpeed, threads) is followed, and `collect_variables` tells it to the
record of a run.
"""

import os
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DynamoBackend

from qredit.utils.device import select_device
from qredit.utils.errors import QreditError

_RECORDED = (
    "ACCELERATE_",
    "FSDP_",
    "PARALLELISM_CONFIG_",
    "OMP_",
    "MKL_",
    "ONEDNN_",
    "CUBLAS_",
    "NVIDIA_",
    "ATEN_",
)
_PRECISION = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def check_environment(accelerator: Accelerator, args: Any) -> None:
    """Compare what accelerate was set up to do with the arguments.

    Raises:
        QreditError: names the variable, its value and the argument it contradicts.
    """
    wanted = "bf16" if args.bf16 else "fp16" if args.fp16 else "no"
    device = select_device(args.use_cpu).type
    compiled = accelerator.state.dynamo_plugin.backend != DynamoBackend.NO
    checks = (
        ("ACCELERATE_MIXED_PRECISION", str(accelerator.mixed_precision), wanted, "bf16 and fp16 (--dtype)"),
        (
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
            os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", str(args.gradient_accumulation_steps)),
            str(args.gradient_accumulation_steps),
            "gradient_accumulation_steps (--prompts-per-forward)",
        ),
        ("ACCELERATE_USE_CPU", accelerator.device.type, device, "use_cpu (--cpu)"),
        ("ACCELERATE_DYNAMO_BACKEND", str(compiled), str(bool(args.torch_compile)), "torch_compile"),
    )
    for variable, found, asked, argument in checks:
        if found != asked:
            raise QreditError(
                f"the environment says {variable}={os.environ.get(variable)}, the arguments say {asked} by {argument}; "
                f"unset {variable}, or give the argument"
            )


def get_compute_dtype(accelerator: Accelerator) -> str:
    """The type that a run computes in, as accelerate was set up."""
    return _PRECISION.get(str(accelerator.mixed_precision), str(accelerator.mixed_precision))


def collect_variables() -> dict[str, str]:
    """Environment variables that may change how a run computes, for its record."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_RECORDED)}
