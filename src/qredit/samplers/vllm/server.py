"""vLLM on a server: completions over HTTP, weights through a folder that trainer and server both see.

The server is `vllm serve MODEL` with VLLM_SERVER_DEV_MODE=1, which opens what pushes need. Each process of a run asks
for its own rows.
"""

import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from qredit.rollouts.sampling_params import SamplingParams
from qredit.samplers.vllm.colocate import choose_logprobs, list_sampling_arguments
from qredit.samplers.vllm.engine import EngineOutput, EngineRow
from qredit.samplers.vllm.settings import VllmSettings
from qredit.utils.errors import QreditError

_AT_ONCE = 64  # requests on their way; the server batches them
_SHARD_BYTES = 2 << 30
_TRIES, _FIRST_PAUSE = 6, 1.0  # of a request that the server does not answer: pauses of 1, 2, 4, … seconds between them
_SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")


class ServerLostError(QreditError):
    """A server that was there does not answer any more; what a run has saved is good."""


@dataclass
class ServerEngine:
    """An engine behind an address.

    Attributes:
        url: of the server.
        model: the name that it serves the model by.
        dtype: what it computes in.
        timeout: seconds that a request may take.
        instance: what tells this start of the server from another, after which it has its first weights again.
        main: whether this process pushes weights; the others go through them, since gathering takes all.
        wait: until all processes are here.
    """

    url: str
    model: str
    dtype: str
    timeout: float
    instance: str | None = None
    main: bool = True
    wait: Callable[[], None] = lambda: None

    def generate(self, rows: Sequence[EngineRow], draw: SamplingParams) -> list[EngineOutput]:
        """One output for each row, in their order.

        Raises:
            ServerLostError: no answer after several tries, or from a server that has started anew.
            QreditError: the server refuses a row.
        """
        self._check_instance()
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            drawn = list(threads.map(lambda row: self._generate_one(row, draw), rows))
        self._check_instance()
        return drawn

    def _check_instance(self) -> None:
        """Refuse a server that was started again since the last push: it draws with other weights."""
        if self._identify() != self.instance:
            raise ServerLostError(
                f"the vLLM server at {self.url} was started again and has lost the weights of this run; go on with the "
                "run by --resume"
            )

    def _identify(self) -> str | None:
        found = self._ask("/server_info?config_format=json", None)["vllm_config"].get("instance_id")
        return None if found is None else str(found)

    def _generate_one(self, row: EngineRow, draw: SamplingParams) -> EngineOutput:
        asked = {
            **list_sampling_arguments(row, draw),
            "model": self.model,
            "prompt": list(row.prompt_ids),
            "return_token_ids": True,
        }
        del asked["detokenize"]  # not a server's; it always does
        (choice,) = self._ask("/v1/completions", asked)["choices"]
        return EngineOutput(tuple(choice["token_ids"]), tuple(map(float, choice["logprobs"]["token_logprobs"])))

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Draw with these weights from now on.

        Raises:
            ServerLostError: no answer after several tries.
            QreditError: the server cannot read them.
        """
        if self.main:
            with tempfile.TemporaryDirectory(prefix="qredit-weights-") as folder:
                _write_shards(weights, Path(folder))
                self._ask("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
            if self._ask("/reset_prefix_cache", {}) == {"success": False}:
                raise QreditError(
                    f"the vLLM server at {self.url} did not forget the prompts that it had cached before the push; "
                    "another client must not use it meanwhile"
                )
        else:
            for _ in weights:
                pass
        self.wait()  # nobody draws before the push is done
        self.instance = self._identify()

    def is_any(self, going: bool) -> bool:
        """What was said: nobody has to ask along."""
        return going

    def sleep(self) -> None:
        """Nothing: the server's memory is its own."""

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> Any:
        """The answer to a request, asked again where the server is not there for a while."""
        for attempt in range(_TRIES):
            try:
                return _request(self.url + path, body, self.timeout)
            except urllib.error.HTTPError as error:
                raise QreditError(f"the vLLM server at {self.url} refuses {path}: {_explain(error)}") from None
            except OSError as error:
                if attempt == _TRIES - 1:
                    raise ServerLostError(
                        f"the vLLM server at {self.url} does not answer any more, after {_TRIES} tries ({error}); "
                        "start it again, then go on with the run by --resume"
                    ) from None
                time.sleep(_FIRST_PAUSE * 2**attempt)
        raise AssertionError("the last try returns or raises")


def connect(
    settings: VllmSettings,
    config: PretrainedConfig,
    draw: SamplingParams,
    *,
    dtype: str,
    length: int,
    main: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> ServerEngine:
    """The engine behind the address in the settings, once it answers.

    Args:
        settings: as the user gave them.
        config: of the model.
        draw: how completions are drawn.
        dtype: what the policy computes in.
        length: most tokens of a prompt and its completion.
        main: whether this process pushes weights.
        wait: until all processes are here.

    Raises:
        QreditError: it does not answer, serves another model, or computes and tells otherwise than the run needs.
    """
    told = choose_logprobs(draw)
    _wait(settings)
    url = settings.url
    try:
        served = _request(f"{url}/v1/models", None, settings.server_timeout)["data"][0]["id"]
        found = _request(f"{url}/server_info?config_format=json", None, settings.server_timeout)["vllm_config"]
    except urllib.error.HTTPError as error:
        raise QreditError(
            f"the vLLM server at {url} does not open what pushing weights takes ({_explain(error)}); start it with "
            "VLLM_SERVER_DEV_MODE=1"
        ) from None
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise QreditError(f"what answers at {url} is no vLLM server that works here ({error!r})") from None
    theirs = found["model_config"]
    _check_same_model(url, str(theirs["model"]), config)
    changed = {} if draw == SamplingParams() else {"logprobs_mode": told}  # else all of them are the same
    _check_served(url, theirs, {"dtype": dtype, **changed}, length)
    return ServerEngine(url, served, dtype, settings.server_timeout, main=main, wait=wait)


def _wait(settings: VllmSettings) -> None:
    """Wait until the server answers."""
    start = time.monotonic()
    while True:
        try:
            _request(f"{settings.url}/health", None, settings.server_timeout)
            return
        except urllib.error.HTTPError as error:
            reason = _explain(error)
        except OSError as error:
            reason = str(getattr(error, "reason", error))
        except ValueError as error:
            raise QreditError(f"vllm_server_base_url is no address: {settings.url} ({error})") from None
        waited = time.monotonic() - start
        if waited + 1 > settings.server_timeout:
            raise QreditError(
                f"no vLLM server answers at {settings.url}: waited {waited:.0f} s, vllm_server_timeout is "
                f"{settings.server_timeout:g} ({reason})"
            )
        time.sleep(1)


def _check_same_model(url: str, served: str, config: PretrainedConfig) -> None:
    """Refuse a server of another model: by its configuration where that can be read here, else by its name."""
    own = str(config._name_or_path)
    try:
        theirs = AutoConfig.from_pretrained(served, trust_remote_code=False)
    except Exception:  # it may lie where only the server sees it
        if Path(served).name != Path(own).name:
            raise QreditError(
                f"the vLLM server at {url} serves '{served}', and this run's model is '{own}'; start it with that model"
            ) from None
        return
    for name in _SHAPE:
        has, wants = getattr(theirs.get_text_config(), name, None), getattr(config.get_text_config(), name, None)
        if has != wants:
            raise QreditError(
                f"the vLLM server at {url} serves '{served}', another model than this run's: its {name} is {has}, not "
                f"{wants}"
            )


def _check_served(url: str, found: Mapping[str, Any], wanted: Mapping[str, str], length: int) -> None:
    """Refuse a server that draws by other rules than the run asks for."""
    for name, value in wanted.items():
        has = str(found.get(name, value)).removeprefix("torch.")
        if has != value:
            raise QreditError(
                f"the vLLM server at {url} has {name} {has}, and this run needs {value}: start it with "
                f"--{name.replace('_', '-')} {value}"
            )
    longest = found.get("max_model_len")
    if isinstance(longest, int) and longest < length:
        raise QreditError(
            f"the vLLM server at {url} takes {longest} tokens, and the longest prompt and its completion are {length}: "
            f"start it with --max-model-len {length}"
        )


def _write_shards(weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Weights as safetensors files, each as large as fits the memory beside them."""
    held: dict[str, Tensor] = {}
    size = count = 0
    for name, value in weights:
        held[name] = value.detach().to("cpu", copy=True).contiguous()  # adapters are in it while it is handed out
        size += held[name].numel() * held[name].element_size()
        if size >= _SHARD_BYTES:
            save_file(held, folder / f"model-{count:05}.safetensors")
            held, size, count = {}, 0, count + 1
    if held:
        save_file(held, folder / f"model-{count:05}.safetensors")


def _request(url: str, body: Mapping[str, Any] | None, timeout: float) -> Any:
    """The JSON that a server answers; None for an empty answer. A GET where there is no body."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=timeout) as answer:
        text = answer.read()
    return json.loads(text) if text.strip() else None


def _explain(error: urllib.error.HTTPError) -> str:
    """What a server says of a refusal, on one line."""
    said = " ".join(error.read().decode(errors="replace").split())
    return f"status {error.code}{': ' + said[:200] if said else ''}"
