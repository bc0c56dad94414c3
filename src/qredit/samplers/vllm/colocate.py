"""vLLM in the process that trains: an engine made after the policy's configuration, with the policy's own weights.

The engine is made with weights of its own invention and gets the policy's by the first push. So a model that was loaded
already, changed, or made in memory needs no folder, and no file is read twice.
"""

import contextlib
import os
import random
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qredit.rollouts.sampling_params import SamplingParams
from qredit.samplers.vllm.engine import EngineOutput, EngineRow
from qredit.samplers.vllm.settings import VllmSettings
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error

_TOKENS_AT_ONCE = 4096  # TRL's: the profiler of vLLM takes its own default for a need of memory
_CPU_VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # threads are the trainer's as well
    "TORCH_COMPILE_DISABLE": "1",
}
_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # weights are pushed by reference, which a process of its own cannot take
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass
class ColocatedEngine:
    """An engine in this process.

    Attributes:
        llm: vLLM's own.
        dtype: what it computes in.
        length: most tokens of a prompt and its completion.
        naps: it sleeps when it is told to.
        asleep: it does so now.
    """

    llm: Any
    dtype: str
    length: int
    naps: bool = False
    asleep: bool = False

    def generate(self, rows: Sequence[EngineRow], draw: SamplingParams) -> list[EngineOutput]:
        """One output for each row, in their order; wakes the engine.

        Raises:
            QreditError: a row that does not fit.
        """
        longest = max((len(row.prompt_ids) + row.max_tokens for row in rows), default=0)
        if longest > self.length:
            raise QreditError(
                f"a prompt and its completion take {longest} tokens, and vLLM was made for {self.length}; "
                f"set vllm_max_model_length to {longest} or more"
            )
        self._wake()
        params = [make_sampling_params(row, draw) for row in rows]
        prompts = [{"prompt_token_ids": list(row.prompt_ids)} for row in rows]
        answered = self.llm.generate(prompts, params, use_tqdm=False)
        return [_read_output(one.outputs[0]) for one in answered]

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Draw with these weights from now on.

        Raises:
            QreditError: some of the engine's weights were not among them.
        """
        self._wake()
        network = self.llm.llm_engine.model_executor.driver_worker.model_runner.model
        found = network.load_weights(weights)
        check_complete(network, found)
        if not self.llm.reset_prefix_cache():
            raise QreditError("vLLM did not forget the prompts that it had cached under the weights before")

    def is_any(self, going: bool) -> bool:
        """What was said: nobody shares this engine."""
        return going

    def sleep(self) -> None:
        """Give memory back, where that was asked for: weights wait in the memory of the CPU."""
        if self.naps and not self.asleep:
            self.llm.sleep(level=1)
            self.asleep = True

    def _wake(self) -> None:
        if self.asleep:
            if torch.accelerator.is_available():
                torch.accelerator.memory.empty_cache()  # what the update left: the engine needs the device's own
            self.llm.wake_up()
            self.asleep = False


def start_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: VllmSettings,
    draw: SamplingParams,
    *,
    device: torch.device,
    dtype: str,
    length: int,
    place: int = 0,
    world: int = 1,
) -> ColocatedEngine:
    """An engine for a model, whose weights it does not have yet.

    Args:
        model: the base model, without adapters; its configuration is read.
        tokenizer: of the model.
        settings: as the user gave them.
        draw: how completions are drawn; decides which log-probabilities the engine tells.
        device: where the policy computes.
        dtype: what it computes in.
        length: most tokens of a prompt and its completion.
        place: number of this process.
        world: processes that train together.

    Raises:
        QreditError: settings or a model that cannot be used.
    """
    told = choose_logprobs(draw)
    check_length(settings, length)
    settings.check_processes(world)
    on_cpu = device.type == "cpu"
    length = settings.max_model_length or length
    key = _describe(model, tokenizer, settings, told, device, dtype, place, world)
    kept = next((engine for engine in _ENGINES.get(key, ()) if engine.length >= length), None)
    if kept is not None:
        return kept
    for name, value in (_VARIABLES | (_CPU_VARIABLES if on_cpu else {})).items():
        os.environ.setdefault(name, value)
    # A prompt that is read in parts takes a row's generator back, and one of a CPU cannot go back.
    further: dict[str, Any] = {"enforce_eager": True, "enable_chunked_prefill": False} if on_cpu else {}
    if world > 1:
        _tell_place(place, world)
        further["distributed_executor_backend"] = "external_launcher"
    with _generators_kept(), tempfile.TemporaryDirectory() as folder:
        try:
            if on_cpu:
                # Else float32 weights are packed for oneDNN and emptied, and later pushes have no effect.
                from vllm import _custom_ops

                _custom_ops._supports_onednn = False
            from vllm import LLM
            from vllm.platforms import current_platform

            if current_platform.is_cpu() != on_cpu:
                raise QreditError(
                    f"the vLLM that is installed computes on {current_platform.device_type}, this run on {device.type}"
                )
            write_configuration(model, tokenizer, Path(folder))
            llm = LLM(
                model=folder,
                tokenizer=folder,
                load_format="dummy",
                dtype=dtype,
                generation_config="vllm",
                seed=place // settings.tensor_parallel_size,
                max_model_len=length,
                max_num_batched_tokens=max(_TOKENS_AT_ONCE, length),
                gpu_memory_utilization=settings.gpu_memory_utilization,
                tensor_parallel_size=settings.tensor_parallel_size,
                enable_sleep_mode=settings.enable_sleep_mode,
                enable_prefix_caching=True,
                model_impl=settings.model_impl,
                logprobs_mode=told,
                trust_remote_code=False,
                disable_log_stats=True,
                **further,
            )
            _STARTED.append(llm)
            engine = ColocatedEngine(llm, dtype, length, naps=settings.enable_sleep_mode)
            # Some models are loaded and cannot be computed, such as those with heads that no kernel here is made for.
            engine.generate([EngineRow((0,), 1, (), None, seed=0)], draw)
        except QreditError:
            raise
        except Exception as error:  # it raises what the libraries below it do
            name = model.config._name_or_path or type(model).__name__
            raise QreditError(f"vLLM cannot run model '{name}': {_summarize(error)}") from error
    _ENGINES.setdefault(key, []).append(engine)
    return engine


_ENGINES: dict[Hashable, list[ColocatedEngine]] = {}
"""Engines of this process: runs one after the other, such as those of a comparison, share one by pushing to it."""
_STARTED: list[Any] = []
"""vLLM's own, those too that were refused: where one is forgotten, vLLM ends what all engines of the process share."""


def _describe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *others: Hashable) -> Hashable:
    """What two engines have in common that may stand for each other; weights are no part of it."""
    return model.config.to_json_string(), frozenset(tokenizer.get_vocab().items()), others


def choose_logprobs(draw: SamplingParams) -> str:
    """Which of vLLM's log-probabilities are those under the model at the sampling temperature.

    At temperature 1, and at 0 where it stands for 1, they are those before anything was changed. At any other they are
    those after the change, which are right where nothing but the temperature changes them.

    Raises:
        QreditError: the engine would renormalise over the tokens that are left.
    """
    if draw.temperature in (0.0, 1.0):
        return "raw_logprobs"
    if draw != SamplingParams(temperature=draw.temperature):
        raise QreditError(
            f"with vLLM top_p, top_k, min_p and repetition_penalty need temperature 1, got {draw.temperature}: at any "
            "other the engine tells log-probabilities over the tokens that are left, which are not the model's"
        )
    return "processed_logprobs"


def check_length(settings: VllmSettings, length: int) -> None:
    """Refuse an engine that prompts and completions do not fit.

    Raises:
        QreditError: names both lengths.
    """
    if settings.max_model_length is not None and settings.max_model_length < length:
        raise QreditError(
            f"vllm_max_model_length={settings.max_model_length} is less than the {length} tokens that the longest "
            "prompt and its completion take; leave it out, or drop long prompts with skip_long"
        )


def make_sampling_params(row: EngineRow, draw: SamplingParams) -> Any:
    """vLLM's parameters of one row."""
    from vllm import SamplingParams as VllmParams  # here, as above: it takes most of a minute, and may be missing

    return VllmParams(**list_sampling_arguments(row, draw))


def list_sampling_arguments(row: EngineRow, draw: SamplingParams) -> dict[str, Any]:
    """The same by name, as a server takes them, too."""
    ends: dict[str, Any] = {"stop": [row.stop], "include_stop_str_in_output": True} if row.stop is not None else {}
    return {
        "temperature": draw.temperature,
        "top_p": draw.top_p,
        "top_k": draw.top_k,
        "min_p": draw.min_p or 0.0,
        "repetition_penalty": draw.repetition_penalty,
        "max_tokens": row.max_tokens,
        "seed": row.seed,
        "logprobs": 0,  # of the token that was drawn alone
        "ignore_eos": True,  # what ends a completion is among stop_token_ids
        "stop_token_ids": list(row.stop_token_ids),
        "skip_special_tokens": False,  # a closing may be one
        "spaces_between_special_tokens": False,
        "detokenize": row.stop is not None,
        **ends,
    }


def list_length_arguments(row: EngineRow) -> dict[str, Any]:
    """What `list_sampling_arguments` asks but for the distribution, where that is another's to say."""
    asked = list_sampling_arguments(row, SamplingParams())
    left_out = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty"}
    return {name: value for name, value in asked.items() if name not in left_out}


def check_complete(network: Any, found: Iterable[str] | None) -> None:
    """Refuse an engine some of whose weights are not the policy's.

    Args:
        network: the engine's model.
        found: names of its parameters that were given; None where it does not tell.

    Raises:
        QreditError: names the first that is missing, or that the engine has emptied.
    """
    own = dict(network.named_parameters())
    empty = sorted(name for name, parameter in own.items() if parameter.numel() == 0)
    if empty:
        raise QreditError(f"vLLM keeps '{empty[0]}' where no push reaches it, and {len(empty) - 1} others")
    missing = sorted(set(own) - set(found)) if found is not None else []
    if missing:
        raise QreditError(
            f"vLLM knows {len(missing)} weights of this model by names that the policy does not have, first "
            f"'{missing[0]}'; they cannot be kept equal"
        )


def write_configuration(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """What an engine reads of a model beside its weights.

    Args:
        model: the base model.
        tokenizer: of the model.
        folder: where the files are put.
    """
    config = type(model.config).from_dict(model.config.to_dict())
    config.architectures = [_plain_class_name(model)]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _plain_class_name(model: PreTrainedModel) -> str:
    """The class of transformers that a model is of, whatever was derived from it here."""
    found = next(kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers."))
    return found.__name__


def _summarize(error: Exception) -> str:
    """What vLLM says is wrong, on one line: its errors of validation begin with how many there are."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return summarize_error(error)
    return " ".join(str(errors()[0]["msg"]).removeprefix("Value error, ").split())


def _read_output(output: Any) -> EngineOutput:
    ids = tuple(output.token_ids)
    return EngineOutput(ids, tuple(float(told[id].logprob) for id, told in zip(ids, output.logprobs, strict=True)))


def _tell_place(place: int, world: int) -> None:
    """What vLLM reads of a process that a launcher started."""
    os.environ.setdefault("RANK", str(place))
    os.environ.setdefault("LOCAL_RANK", str(place))
    os.environ.setdefault("WORLD_SIZE", str(world))


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """vLLM seeds all generators when it starts; a run's own draws must not depend on that."""
    import numpy as np

    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.accelerator.device_count()) if torch.accelerator.is_available() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002
