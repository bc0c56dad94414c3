"""How vLLM is used: where it runs, how much memory it takes, and which server is asked. Names are TRL's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from qredit.utils.errors import QreditError

PREFIX = "vllm_"
MODES = ("colocate", "server")
_IMPLEMENTATIONS = ("vllm", "transformers", "auto")
_SERVER = ("server_base_url", "server_host", "server_port", "server_timeout")
_COLOCATE = ("gpu_memory_utilization", "max_model_length", "tensor_parallel_size", "enable_sleep_mode", "model_impl")


@dataclass(frozen=True)
class VllmSettings:
    """What TRL's options say of vLLM, without their `vllm_`.

    Attributes:
        mode: colocate, in the process that trains; server, one that runs already.
        gpu_memory_utilization: share of the accelerator's memory that the engine may take, weights included.
        max_model_length: most tokens of a prompt and its completion; None is what a run needs.
        tensor_parallel_size: processes that share one engine.
        enable_sleep_mode: the engine gives its memory back while the policy learns.
        model_impl: whose implementation of the model is used.
        server_base_url: address of the server; None is made of host and port.
        server_host, server_port: where it listens.
        server_timeout: seconds to wait for it.
    """

    mode: Literal["colocate", "server"] = "colocate"
    gpu_memory_utilization: float = 0.3
    max_model_length: int | None = None
    tensor_parallel_size: int = 1
    enable_sleep_mode: bool = False
    model_impl: str = "vllm"
    server_base_url: str | None = None
    server_host: str = "0.0.0.0"
    server_port: int = 8000
    server_timeout: float = 240.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise QreditError(f"vllm_mode must be {' or '.join(MODES)}, got {self.mode!r}")
        if self.model_impl not in _IMPLEMENTATIONS:
            raise QreditError(f"vllm_model_impl must be {' or '.join(_IMPLEMENTATIONS)}, got {self.model_impl!r}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise QreditError(
                f"vllm_gpu_memory_utilization is a share of the memory, above 0 and at most 1, got "
                f"{self.gpu_memory_utilization}"
            )
        if not 0 < self.server_timeout < math.inf:
            raise QreditError(f"vllm_server_timeout is in seconds and above 0, got {self.server_timeout}")
        if not 0 < self.server_port < 65536:
            raise QreditError(f"vllm_server_port must lie between 1 and 65535, got {self.server_port}")
        for name in ("tensor_parallel_size", "max_model_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise QreditError(f"vllm_{name} must be at least 1, got {value}")
        self._refuse_those_of_the_other_mode()

    def _refuse_those_of_the_other_mode(self) -> None:
        defaults = {f.name: f.default for f in fields(self)}
        foreign = _SERVER if self.mode == "colocate" else _COLOCATE
        for name in foreign:
            value = getattr(self, name)
            if value != defaults[name]:
                instead = (
                    "it is for vllm_mode=server"
                    if self.mode == "colocate"
                    else "a server has it from its own command line"
                )
                raise QreditError(f"vllm_{name}={value!r} has no effect with vllm_mode={self.mode}: {instead}")

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> "VllmSettings":
        """The settings among some options, by their full names; other options are left alone.

        Raises:
            QreditError: a value that cannot be, or one that the mode leaves without effect.
        """
        names = [f.name for f in fields(cls)]
        return cls(**{name: options[PREFIX + name] for name in names if PREFIX + name in options})

    @property
    def url(self) -> str:
        """The server's address."""
        # At 0.0.0.0 a server listens, and none can be asked.
        host = "127.0.0.1" if self.server_host == "0.0.0.0" else self.server_host
        return (self.server_base_url or f"http://{host}:{self.server_port}").rstrip("/")

    def check_processes(self, world: int) -> None:
        """Refuse a number of processes that engines cannot be made of.

        Raises:
            QreditError: names both numbers.
        """
        if world % self.tensor_parallel_size:
            raise QreditError(
                f"vllm_tensor_parallel_size={self.tensor_parallel_size} does not divide the {world} "
                f"process{'es' * (world > 1)} of this run"
            )


def refuse_unused(options: Mapping[str, Any]) -> None:
    """Refuse an option of vLLM among those of a run that does not use it.

    Raises:
        QreditError: names the first.
    """
    idle = next((name for name in options if name.startswith(PREFIX)), None)
    if idle is not None:
        raise QreditError(f"{idle}={options[idle]!r} has no effect without use_vllm")
