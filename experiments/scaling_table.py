"""What fits on which card: a section of docs/scaling.md, estimated. `make scaling`, about five minutes.

`qredit train --dry-run` estimates a run from a small forward pass. Large models do not fit where this runs. So the
estimate is made of models of their width with one and two layers and a small vocabulary, on few tokens. Each part of it
is linear in the number of layers and in the vocabulary, or is that of one layer, and linear in tokens of one kind. So
it is carried on to the whole model and its size.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from string import Template

import torch
from page import insert

from qredit.runs.library_logging import silence_libraries
from qredit.shared_prefix.head import tokens_per_chunk
from qredit.trl.bench.arms import QreditArm
from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import QWEN3_0_6B, ModelShape, Size
from qredit.trl.memory_estimate import estimate_memory

PAGE, TEXT = Path("docs/scaling.md"), Path(__file__).with_name("scaling_table.md.in")
# config.json of each model: vocabulary, hidden_size, intermediate_size, layers, heads, key heads, head_dim, tied
MODELS = {
    "Qwen3-0.6B": QWEN3_0_6B,
    "Qwen3-1.7B": ModelShape(151936, 2048, 6144, 28, 16, 8, 128, tied=True),
    "Qwen3-4B": ModelShape(151936, 2560, 9728, 36, 32, 8, 128, tied=True),
    "Qwen3-8B": ModelShape(151936, 4096, 12288, 36, 32, 8, 128),
}
SIZES = (Size(512, 512, 8), Size(512, 512, 32), Size(1536, 2048, 8), Size(1536, 2048, 32))
FULL, LORA = Setup(half=True, checkpointing=True), Setup(half=True, checkpointing=True, lora_r=16)
CARDS, VOCABULARY, FEW = 8, 1000, Size(128, 128, 2)
STATE = ("weights", "gradients", "moments")
OF_A_LAYER = ("layer", "prefill")  # however many there are
LEFT_OUT = ("process", "trial", "head")  # of this process, of a CPU's allocator, and the one part that is computed anew
Parts = Mapping[str, float]
"""Bytes by part."""


@dataclass(frozen=True)
class Phases:
    """What a card holds while it samples and while it updates, by part. Bytes."""

    sampling: Parts
    update: Parts


def measure(shape: ModelShape, setup: Setup) -> Phases:
    """The dry run's estimate with one row in a forward pass, the least that a run is cut down to, on few tokens.

    Args:
        shape: of the model.
        setup: precision, checkpointing, adapters.
    """
    trainer = QreditArm(FEW, shape, setup, "garl(q=0.75)", shared=True).trainer
    trainer.args.rows_per_forward = 1
    phases = estimate_memory(trainer).phases
    return Phases(*({k: v for k, v in phases[name].items() if k not in LEFT_OUT} for name in ("sampling", "update")))


@cache
def measure_whole(shape: ModelShape, setup: Setup) -> Phases:
    """The whole model's parts on few tokens, from models of one and two layers and of two vocabularies.

    Args:
        shape: of the model.
        setup: precision, checkpointing, adapters.
    """
    small = replace(shape, layers=1, vocabulary=VOCABULARY)
    models = (small, replace(small, layers=2), replace(small, vocabulary=2 * VOCABULARY))
    one, deeper, wider = (measure(model, setup) for model in models)

    def carry_on(base: Parts, layer: Parts, words: Parts) -> dict[str, float]:
        layers, more = shape.layers - 1, shape.vocabulary / VOCABULARY - 1
        linear = {k: v + layers * (layer[k] - v) + more * (words[k] - v) for k, v in base.items()}
        return linear | {k: layer[k] for k in OF_A_LAYER if k in layer}

    chunk = tokens_per_chunk(shape.vocabulary, torch.device("cuda"))
    tied = shape.vocabulary * shape.hidden if shape.tied and setup.lora_r is None else 0
    head = {"head": 4.0 * (2 * chunk * shape.vocabulary + tied)}
    update = carry_on(one.update, deeper.update, wider.update)
    return Phases(carry_on(one.sampling, deeper.sampling, wider.sampling), update | head)


def estimate(shape: ModelShape, size: Size, setup: Setup) -> Phases:
    """The whole model's parts at a size.

    Args:
        shape: of the model.
        size: tokens of prompt and completion, and rollouts.
        setup: precision, checkpointing, adapters.
    """
    row = (size.prompt + size.completion) / (FEW.prompt + FEW.completion)
    grows = {
        "cache": (size.prompt + size.m * size.completion) / (FEW.prompt + FEW.m * FEW.completion),
        "logits": size.m / FEW.m,
        "prefill": size.prompt / FEW.prompt,
        "layer": row,
        "activations": row,
    }
    few = measure_whole(shape, setup)
    return Phases(*({k: grows.get(k, 1.0) * v for k, v in parts.items()} for parts in (few.sampling, few.update)))


def peak(phases: Phases, shape: ModelShape, cards: int) -> float:
    """Bytes of a card at its peak.

    With FSDP2 it holds its share of weights, gradients and moments. While it samples it has the whole weights. While
    it updates it has those of two layers, the one at work and the next one.

    Args:
        phases: of one card alone.
        shape: of the model.
        cards: among which weights are shared out; 1 is no sharding.
    """
    weights = phases.sampling["weights"]
    state = (
        {"sampling": weights, "update": 2 * weights / shape.layers} if cards > 1 else {"sampling": 0.0, "update": 0.0}
    )
    held = {
        name: sum(size / cards if part in STATE else size for part, size in parts.items()) + state[name]
        for name, parts in (("sampling", phases.sampling), ("update", phases.update))
    }
    return max(held.values())


def main() -> None:
    """Estimate every cell and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    torch.set_num_threads(1)
    rows = []
    for name, shape in MODELS.items():
        for size in SIZES:
            found = [(FULL, 1), (FULL, CARDS), (LORA, 1)]
            cells = [f"{peak(estimate(shape, size, setup), shape, cards) / 2**30:.0f}" for setup, cards in found]
            rows.append(f"| {name} | {size.m} | {size.prompt} + {size.completion} | {' | '.join(cells)} |")
            sys.stderr.write(rows[-1] + "\n")
    insert(PAGE, "what fits", Template(TEXT.read_text()).substitute(rows="\n".join(rows), cards=CARDS))


if __name__ == "__main__":
    main()
