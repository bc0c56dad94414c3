"""Makes the pocket models: `python -m pocket_models.pretrain [NAME …]`, all of them without a name.

A model first learns to reason, from gold rationales, then takes up the habits of its task's base model: so that what it
lacks, cold, is the form of an answer and not the ability to find one. Weights are kept in half precision. On the same
machine and versions a model comes out the same, bit for bit.
"""

import copy
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from pocket_models import tokenizer as pocket_tokenizer
from pocket_models.behaviour import COLD, RIGHT, WARM, Habits, transcript
from pocket_models.loss import Tokens, pretraining_loss, targets
from pocket_models.measure import measure
from pocket_models.specs import SPECS, Shape, Spec
from qredit import tasks
from qredit.pocket.models import FOLDER, get_model_path
from qredit.rollouts.tokenizer import vocabulary_size
from qredit.runs.library_logging import silence_libraries
from qredit.runs.progress_bars import make_progress_bars
from qredit.tasks.base import Style
from qredit.tasks.pocket.scene import PocketTask, draw_scenes

SEED = 0
THREADS = 1
SCENES, QUESTIONS = 48, 3
WARMUP, BETAS = 100, (0.9, 0.98)
REASON: Mapping[Style, Habits] = {"cold": replace(RIGHT, sentence=1.0), "warm": RIGHT}
BEHAVE: Mapping[Style, Habits] = {"cold": COLD, "warm": WARM}


@dataclass(frozen=True)
class Phase:
    """A part of pretraining: the habits that its texts follow, optimiser steps, and the highest learning rate."""

    name: str
    habits: Mapping[Style, Habits]
    steps: int
    learning_rate: float


def network(shape: Shape, tokenizer: Any) -> Any:
    """A Qwen3-shaped network with new weights."""
    config = Qwen3Config(
        vocab_size=vocabulary_size(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=2 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 2,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def batches(
    task: PocketTask, tokenizer: Any, habits: Mapping[Style, Habits], seed: str
) -> Iterator[tuple[Int[Tensor, "B L"], Bool[Tensor, " B"]]]:
    """Token ids of transcripts that follow the habits, padded, and which of them are cold; a function of the seed."""
    rng = random.Random(seed)
    source = draw_scenes(task.draw, "train", seed)
    styles: tuple[Style, Style] = ("cold", "warm")
    while True:
        chosen = [styles[row % 2] for row in range(SCENES)]
        texts = [transcript(rng, task, next(source), style, habits[style], QUESTIONS) for style in chosen]
        ids = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
        yield ids, torch.tensor([style == "cold" for style in chosen])


def train(model: Any, tokenizer: Any, task: PocketTask, phase: Phase, gate: float, bars: Progress) -> None:
    """AdamW over the batches of a phase; the learning rate rises over `WARMUP` steps and falls linearly to nothing."""
    tokens = Tokens.of(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.learning_rate, betas=BETAS, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, 1.0) * (1 - step / phase.steps)
    )
    bar = bars.add_task(f"{task.name}: {phase.name}", total=phase.steps, note="")
    stream = batches(task, tokenizer, phase.habits, f"{phase.name} {SEED}")
    for step, (ids, cold) in zip(range(phase.steps), stream, strict=False):
        logits = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits
        loss = pretraining_loss(logits, ids, targets(ids, cold, tokens, gate))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        bars.advance(bar)
        if step % 20 == 0:
            bars.update(bar, note=f"loss {loss.item():.3f}")


def pocket_task_named(name: str) -> PocketTask:
    """The pocket task of that name."""
    task = tasks.get(name)
    assert isinstance(task, PocketTask)
    return task


@cache
def learned(task: str, shape: Shape, steps: int, gate: float) -> Any:
    """A model that reasons rightly in both styles; the models of one task share it."""
    tokenizer = pocket_tokenizer.build()
    torch.manual_seed(SEED)
    model = network(shape, tokenizer)
    with make_progress_bars(Console(highlight=False)) as bars:
        train(model, tokenizer, pocket_task_named(task), Phase("learning", REASON, steps, 2e-3), gate, bars)
    return model


def pretrain(spec: Spec, tokenizer: Any, console: Console) -> Any:
    """A model made as its spec says."""
    task = pocket_task_named(spec.task)
    model = copy.deepcopy(learned(spec.task, spec.shape, spec.learning, spec.first_gate))
    with make_progress_bars(console) as bars:
        train(model, tokenizer, task, Phase("settling", BEHAVE, spec.settling, 1e-3), spec.gate, bars)
    return model


def make(spec: Spec, folder: Path, console: Console) -> dict[str, Any]:
    """Pretrain a model, write it in half precision, and measure what was written: facts.json, and returned."""
    start = time.perf_counter()
    tokenizer = pocket_tokenizer.build()
    pretrain(spec, tokenizer, console).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    written = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    facts = {
        "made": asdict(spec) | {"gate": spec.gate, "seed": SEED},
        "parameters": sum(weight.numel() for weight in written.parameters()),
        "seconds": round(time.perf_counter() - start),
        "measured": measure(written, tokenizer, tasks.get(spec.task)),
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def main(names: Sequence[str], folder: Path | None = None) -> None:
    """Make the models of these names, all of them if there are none."""
    torch.set_num_threads(THREADS)
    silence_libraries()
    console = Console(highlight=False)
    for name in names or SPECS:
        get_model_path(name)
        facts = make(SPECS[name], (folder or FOLDER) / name, console)
        for style in ("cold", "warm"):
            found = facts["measured"][style]
            console.print(
                f"{name} {style}: p@1 {found['accuracy']:.3f}, own rationale {found['own']:.2f}, "
                f"p0 {found['p0']:.1e}, log10 p̂ {found['log10_p']}, gates {found['gates']}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
