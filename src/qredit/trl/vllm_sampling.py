"""vLLM as the sampler of a run on TRL: what is refused before any compute, and the engine made for its model."""

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qredit.data.encoding import HINTED_IDS, PROMPT_IDS
from qredit.samplers.protocol import Sampler
from qredit.samplers.vllm.choice import open_engine
from qredit.samplers.vllm.colocate import choose_logprobs
from qredit.samplers.vllm.engine import Engine
from qredit.samplers.vllm.sampler import VllmSampler, WeightSync
from qredit.samplers.vllm.shared import TensorParallelEngine
from qredit.samplers.vllm.version import check_vllm
from qredit.shared_prefix.support import unwrap_peft
from qredit.trl.config import QreditConfig
from qredit.trl.environment_variables import get_compute_dtype
from qredit.utils.errors import QreditError


def check_vllm_settings(args: QreditConfig) -> None:
    """Refuse a missing or unsupported vLLM, and draws whose log-probabilities it does not tell.

    Raises:
        QreditError: names the version, or the setting.
    """
    if args.vllm is None:
        return
    if args.vllm.mode == "colocate":
        check_vllm()
    choose_logprobs(args.draw)


@contextlib.contextmanager
def hidden_from_trl(args: QreditConfig) -> Iterator[None]:
    """Have TRL's trainer made as if it were to sample by itself: else it would start an engine of its own."""
    asked = args.use_vllm
    args.use_vllm = False
    try:
        yield
    finally:
        args.use_vllm = asked


def check_not_quantized(model: PreTrainedModel) -> None:
    """Refuse quantised weights, which an engine cannot be given.

    Raises:
        QreditError: names the kind.
    """
    config = getattr(model.config, "quantization_config", None)
    if config is not None:
        method = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
        raise QreditError(
            f"use_vllm with quantised weights ({getattr(method, 'value', method)}) is not supported: the engine would "
            "draw from other weights than those that learn. Sample with transformers: leave use_vllm out"
        )


def make_vllm_sampler(
    args: QreditConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    length: int,
    version: Callable[[], Hashable],
) -> VllmSampler:
    """A sampler with an engine for this model.

    Args:
        args: of the run; they ask for vLLM.
        model: of the run, with adapters or without.
        tokenizer: of the model.
        accelerator: of the run.
        length: most tokens of a prompt and its completion.
        version: of the weights: a push is made where it changed.

    Raises:
        QreditError: settings, or a model, that cannot be used.
    """
    settings = args.vllm
    assert settings is not None
    base = unwrap_peft(model)
    check_not_quantized(base)
    world = accelerator.num_processes
    settings.check_processes(world)
    engine = open_engine(
        base,
        tokenizer,
        settings,
        args.draw,
        device=accelerator.device,
        dtype=get_compute_dtype(accelerator),
        length=length,
        place=accelerator.process_index,
        world=world,
        wait=accelerator.wait_for_everyone,
    )
    if settings.tensor_parallel_size > 1:
        engine = _shared(engine, settings.tensor_parallel_size, accelerator)
    accelerator.wait_for_everyone()
    return VllmSampler(engine, WeightSync(engine, version), args.draw)


def _shared(engine: Engine, size: int, accelerator: Accelerator) -> TensorParallelEngine:
    """The engine as one of several processes asks it; neighbours share one."""
    distributed: Any = torch.distributed
    groups = [list(range(start, start + size)) for start in range(0, accelerator.num_processes, size)]
    group, _ = distributed.new_subgroups_by_enumeration(groups)

    def gather(value: Any) -> list[Any]:
        found: list[Any] = [None] * size
        distributed.all_gather_object(found, value, group=group)
        return found

    return TensorParallelEngine(engine, gather, accelerator.process_index % size)


def describe_sampler(args: QreditConfig, sampler: Sampler) -> str:
    """What samples and what it computes in, for the record of a run."""
    if not isinstance(sampler, VllmSampler):
        return "transformers"
    version = f" {check_vllm()}" if args.vllm_mode == "colocate" else ""
    return f"vLLM{version} ({args.vllm_mode}), {sampler.engine.dtype}"


def iterate_prompts(datasets: Iterable[Any]) -> Iterator[Sequence[int]]:
    """The ids of all prompts of encoded rows, those with a hint too."""
    for rows in datasets:
        for name in (PROMPT_IDS, HINTED_IDS):
            if name in rows.column_names:
                yield from rows[name][:]  # a column gone through is read row by row
