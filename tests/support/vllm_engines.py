"""Engines for tests of vLLM: a real one where it is installed, made once, and one that draws with transformers."""

import atexit
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM

from qredit.rollouts.sampling_params import SamplingParams
from qredit.samplers.vllm.colocate import ColocatedEngine, start_engine
from qredit.samplers.vllm.engine import EngineOutput
from qredit.samplers.vllm.sampler import VllmSampler, WeightSync
from qredit.samplers.vllm.server import ServerEngine, connect
from qredit.samplers.vllm.settings import VllmSettings
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.tiny import model, tokenizer

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed; make test-vllm")
HEADS = {"head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1}  # vLLM has kernels for few sizes
LENGTH = 240


def wide_model(seed: int = 0, spread: float = 6.0):
    """The tiny model with heads that vLLM can compute, and weights whose predictions are not all alike."""
    network = model(seed, **HEADS)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(spread if "embed" not in name else spread / 2)
    return network.eval()


@torch.no_grad()
def widen_heads(network):
    """The same function as a Qwen3 network, by heads twice as wide: behind each number of a head stands a zero.

    The frequencies of twice the width are those of the width, and others between them. A norm over twice as many
    numbers is √2 larger, and attention divides by √2 more, so the keys alone are scaled.
    """
    config = network.config
    wide = type(config).from_dict(config.to_dict() | {"head_dim": 2 * config.head_dim})
    made = type(network)(wide).to(network.dtype)
    for name, value in made.state_dict().items():
        own = network.state_dict()[name]
        places = [slice(None, None, 1 + (new > old)) for new, old in zip(value.shape, own.shape, strict=True)]
        value.zero_()
        value[tuple(places)] = own * 0.5**0.5 if "k_norm" in name else own
    return made.eval()


@lru_cache
def real_engine(temperature: float = 1.0) -> ColocatedEngine:
    """vLLM in this process, for models like `wide_model`. It is made once: that takes most of a minute."""
    return start_engine(
        wide_model(),
        tokenizer(),
        VllmSettings(),
        SamplingParams(temperature=temperature),
        device=torch.device("cpu"),
        dtype="float32",
        length=LENGTH,
    )


@lru_cache
def real_server() -> ServerEngine:
    """vLLM's own server, for models like `wide_model`. It is started once, and ends with the tests."""
    folder, port = tempfile.TemporaryDirectory(prefix="qredit-served-"), free_port()
    wide_model().save_pretrained(folder.name)
    tokenizer().save_pretrained(folder.name)
    words = ["--model", folder.name, "--dtype", "float32", "--enforce-eager", "--generation-config", "vllm"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(LENGTH)]
    words += ["--no-enable-chunked-prefill"]  # rows have seeds, and a CPU's generator cannot be taken back
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.vllm_server", *words], cwd=ROOT, stdout=subprocess.DEVNULL
    )

    def end() -> None:
        process.terminate()
        process.wait(60)
        folder.cleanup()

    atexit.register(end)
    settings = VllmSettings(mode="server", server_port=port, server_timeout=240.0)
    return connect(settings, wide_model().config, SamplingParams(), dtype="float32", length=LENGTH)


def make_sampler(engine, network=None, draw=SamplingParams(), version: Callable[[], object] = lambda: 0) -> VllmSampler:
    """A sampler over an engine, with the weights of a network if one is given."""
    sampler = VllmSampler(engine, WeightSync(engine, version), draw)
    if network is not None:
        sampler.weights.pushed = None
        sampler.sync(network)
    return sampler


def score(network, prompt, ids, temperature=1.0):
    """Log-probability of each id by a forward pass of transformers."""
    whole = torch.tensor([[*prompt, *ids]])
    with torch.no_grad():
        logits = network(whole).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, whole[0, len(prompt) :, None])[:, 0].tolist()


def largest_gap(network, trajectories, temperature=1.0):
    """The largest difference between the sampler's log-probabilities and those of a forward pass, drawn tokens only."""
    gaps = [0.0]
    for one in trajectories:
        own = score(network, one.prompt, one.ids, temperature)
        start = 0
        for segment in one.segments:
            stop = start + len(segment.ids)
            if segment.sampled:
                gaps += [abs(a - b) for a, b in zip(segment.logp, own[start:stop], strict=True)]
            start = stop
    return max(gaps)


@dataclass
class TransformersEngine:
    """Draws with a copy of the weights that it was given, greedily or by the row's seed; notes what is asked of it.

    Attributes:
        noise: standard deviation of what is added to its logits: how far it is from the trainer.
    """

    network: object
    dtype: str = "float32"
    noise: float = 0.0
    calls: list = field(default_factory=list)

    def generate(self, rows, draw):
        self.calls.append(("generate", [row.seed for row in rows]))
        return [self._drawn(row, draw) for row in rows]

    def _drawn(self, row, draw):
        ids, logps = [], []
        generator = torch.Generator().manual_seed(row.seed)
        while len(ids) < row.max_tokens:
            with torch.no_grad():
                logits = self.network(torch.tensor([[*row.prompt_ids, *ids]])).logits[0, -1]
            logits = logits + self.noise * torch.sin(torch.arange(len(logits)) * 1.7)
            logps_all = (logits / (draw.temperature or 1.0)).log_softmax(-1)
            token = (
                int(logps_all.argmax())
                if draw.temperature == 0
                else int(torch.multinomial(logps_all.exp(), 1, generator=generator))
            )
            ids.append(token)
            logps.append(float(logps_all[token]))
            if token in row.stop_token_ids:
                break
            if row.stop is not None and row.stop in tokenizer().decode(ids):
                break
        return EngineOutput(tuple(ids), tuple(logps))

    def load(self, weights):
        self.calls.append(("load",))
        given = {name: value.clone() for name, value in weights}  # adapters are in a weight while it is handed out
        made = AutoModelForCausalLM.from_config(self.network.config)
        found = made.load_state_dict(given, strict=False)
        assert not found.unexpected_keys
        assert set(found.missing_keys) <= {"lm_head.weight"}  # tied
        self.network = made.eval()

    def is_any(self, going):
        return going

    def sleep(self):
        self.calls.append(("sleep",))
