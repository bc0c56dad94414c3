"""The memory that a run would reach at its peak, part by part, before any of its steps is taken.

Weights, gradients, moments, keys and logits are counted. What a token holds for the backward pass is measured in one
small forward pass, the same that a run makes before its first update, and the rows are cut as the run would cut them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from qredit.data.encoding import ALIAS_IDS, ANSWER_IDS, PROMPT_IDS
from qredit.engine.memory import count_key_bytes
from qredit.engine.scorer import Scorer
from qredit.rollouts.collate import Rows
from qredit.rollouts.trajectory import make_one_turn
from qredit.shared_prefix.head import tokens_per_chunk
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.support import unwrap_peft

_COPIES = 5  # of the logits of a sampled token: logits, logarithms, two of noise, shares
_SHORT = 32  # tokens on which a layer without checkpointing is measured
_FLOAT32 = 4
ADVICE: Mapping[str, str] = {
    "weights": "take a smaller model",
    "reference": "take a smaller model, or lora, which is its own reference",
    "gradients": "train with lora, or take a smaller model",
    "moments": "train with lora, or take a smaller model",
    "activations": "lower rows_per_forward or max_completion_length, or set gradient_checkpointing",
    "layer": "lower rows_per_forward or max_completion_length",
    "head": "take a model with a smaller vocabulary, or train with lora",
    "prompts": "lower prompts_per_forward",
    "trial": "lower max_completion_length, or set gradient_checkpointing",
    "cache": "lower m, prompts_per_step or max_completion_length",
    "logits": "lower m or prompts_per_step",
    "prefill": "lower prompts_per_step, or leave long prompts out",
    "process": "close what else runs in this process",
}
"""What lowers each part."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What a process would hold at most, above its level before the model is loaded. Bytes.

    Attributes:
        phases: for sampling, scoring and update, what each part holds.
        rows, rows_at_once: of a micro-batch, and those of them in one differentiated forward pass.
        least: the peak with one row in a forward pass.
        available: what this process holds already and what is free here beside it.
    """

    phases: Mapping[str, Mapping[str, float]]
    rows: int
    rows_at_once: int
    least: float
    available: float

    @property
    def phase(self) -> str:
        """The phase that decides."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def peak(self) -> float:
        """The bytes of that phase."""
        return sum(self.phases[self.phase].values())

    @property
    def part(self) -> str:
        """The largest part of that phase."""
        parts = self.phases[self.phase]
        return max(parts, key=lambda name: parts[name])

    @property
    def fits(self) -> bool:
        """Whether the peak is within what is available."""
        return self.peak <= self.available

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in GiB."""

        def gib(size: float) -> float:
            return round(size / 2**30, 3)

        return {
            "peak": gib(self.peak),
            "phase": self.phase,
            "decided_by": self.part,
            "parts": {phase: {name: gib(size) for name, size in parts.items()} for phase, parts in self.phases.items()},
            "rows": self.rows,
            "rows_at_once": self.rows_at_once,
            "least": gib(self.least),
            "available": gib(self.available),
            "fits": self.fits,
            "advice": None if self.fits else ADVICE[self.part],
        }


def estimate_memory(trainer: Any, process: float = 0.0) -> MemoryEstimate:
    """The memory of a run of this trainer, a `QreditTrainer` that has not begun.

    Parts: the weights, those of a copied `reference` and of other teachers, `gradients`, Adam's two `moments`; of
    sampling the `cache` of keys and values, the `logits` of the rows and the `prefill` of the prompts through one
    layer; of scoring and update the `activations` that wait for the backward pass, what one `layer` needs beside them,
    the keys of the `prompts` that PAFT keeps beside checkpointed layers, the `head` (two buffers of logits; where
    embeddings are tied, a second gradient of their size) and, on a CPU, what the `trial` pass that measures rows leaves
    with the allocator.

    Prompts are the longest of the data, completions as long as they may be: a run of shorter ones stays below. Parts
    are summed though gradients grow as activations go: on a CPU the allocator does not reuse one for the other.

    Args:
        trainer: one that can be trained; nothing of it changes.
        process: what building it took beside the weights, bytes.
    """
    scorer, args = trainer.make_scorer(trainer.scorer.teachers), trainer.args
    config, device = scorer.policy().config.get_text_config(), trainer.accelerator.device
    rows = _rows(trainer, trainer.whole_budget.thinking, None)
    with _as_in_training(trainer):
        at_once = len(scorer.split_rows(rows, torch.arange(len(rows.batch.mask)))[0])
        held = scorer.bytes_per_token(rows)
        kept = scorer.kept_bytes(rows) if _keeps_prompts(trainer, scorer, at_once == len(rows.batch.mask)) else 0.0
        layer = _of_a_layer(trainer, held)
    fixed = _fixed(trainer, process)
    sampling = _sampling(trainer, layer, config)
    head = _head(
        scorer.policy(), device, accumulates=at_once < len(rows.batch.mask) or args.gradient_accumulation_steps > 1
    )

    def update(count: int) -> dict[str, float]:
        tokens = scorer.tokens(rows.select(slice(count)))
        trial = (held + layer) * scorer.tokens(scorer.select_longest(rows)) if device.type == "cpu" else 0.0
        parts = {"activations": held * tokens, "layer": layer * tokens, "head": head, "trial": trial}
        return {**fixed, **parts, "prompts": kept if count == at_once else 0.0}

    scoring = {name: size for name, size in update(at_once).items() if name != "activations"}
    phases = {"sampling": sampling | _without(fixed, "gradients"), "scoring": scoring, "update": update(at_once)}
    least = max(sum(phases["sampling"].values()), sum(update(1).values()))
    return MemoryEstimate(phases, len(rows.batch.mask), at_once, least, _available(device, fixed["weights"] + process))


def get_resident_bytes() -> float:
    """Bytes of this process in memory."""
    return float(psutil.Process().memory_info().rss)


def count_weight_bytes(model: torch.nn.Module) -> float:
    """Bytes of a model's parameters, with the scales of those that are quantised."""
    return _size(model.parameters()) + sum(_scale_bytes(p) for p in model.parameters())


def count_parameters(model: torch.nn.Module) -> int:
    """Numbers that a model has; of 4-bit weights, which lie two in a byte, those that they stand for."""
    states = ((p, getattr(p, "quant_state", None)) for p in model.parameters())
    return sum(p.numel() if state is None else state.shape.numel() for p, state in states)


def _scale_bytes(parameter: Any) -> float:
    """Bytes of the scales of a 4-bit weight, and of theirs where they are quantised."""
    state = getattr(parameter, "quant_state", None)
    scales = [] if state is None else [state.absmax, *([state.state2.absmax] if state.nested else [])]
    return _size(scales)


def _rows(trainer: Any, thinking: int, prompt: int | None) -> Rows:
    """A micro-batch as large as one can be: the longest prompts, thinking that uses its whole budget.

    Args:
        thinking: tokens of the rationale.
        prompt: tokens of a prompt at most; None is all of them.
    """
    args, data = trainer.args, trainer.train_dataset
    groups = args.per_device_train_batch_size // args.num_generations
    prompts = [tuple(ids[-prompt:] if prompt else ids) for ids in sorted(data[PROMPT_IDS][:], key=len)[-groups:]]
    close = tuple(trainer.format.close_ids)
    ids = (*[close[0]] * thinking, *close, *[close[0]] * args.budget.answer)
    aliases = data[ALIAS_IDS][:] if ALIAS_IDS in data.column_names else [[]] * len(data)
    answers = (
        tuple(map(tuple, filter(None, (gold, *more)))) for gold, more in zip(data[ANSWER_IDS][:], aliases, strict=True)
    )
    golds = max(answers, key=lambda ids: sum(map(len, ids)))
    drawn = [
        make_one_turn(prompt, ids, (0.0,) * len(ids), thinking, thinking + len(close), forced=True, ended=False)
        for prompt in prompts
    ]
    trajectories = [
        replace(drawn[group % len(drawn)], group=group, golds=golds, reward=0.0)
        for group in (row // args.num_generations for row in range(args.per_device_train_batch_size))
    ]
    made: Rows = trainer.collator.rows(trajectories, args.seed, trainer.collator.vocabulary(trajectories))
    return made


def _keeps_prompts(trainer: Any, scorer: Scorer, whole: bool) -> bool:
    """Whether prompts will run once for two passes over completions; `whole`: all rows fit one pass."""
    return bool(whole and trainer.current_objective().draws and scorer.can_cache_prompts())


@contextmanager
def _as_in_training(trainer: Any) -> Iterator[None]:
    """In training mode, with gradient checkpointing as the run will have it; as before afterwards."""
    model, network = trainer.model, unwrap_peft(trainer.scorer.policy())
    was_training, was_checkpointing = model.training, network.is_gradient_checkpointing
    model.train()
    _set_checkpointing(trainer, bool(trainer.args.gradient_checkpointing))
    try:
        yield
    finally:
        _set_checkpointing(trainer, was_checkpointing)
        model.train(was_training)


def _set_checkpointing(trainer: Any, on: bool) -> None:
    network = unwrap_peft(trainer.scorer.policy())
    if on and not network.is_gradient_checkpointing:
        network.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    elif not on and network.is_gradient_checkpointing:
        network.gradient_checkpointing_disable()


def _of_a_layer(trainer: Any, held: float) -> float:
    """What one layer needs per token beside the activations that are held.

    The gradients of what it holds; with gradient checkpointing also what it holds when it runs again, measured on a few
    tokens. An accelerator's measure has them in it.
    """
    layers = int(trainer.scorer.policy().config.get_text_config().num_hidden_layers)
    if trainer.accelerator.device.type != "cpu":
        return 0.0
    if not trainer.args.gradient_checkpointing:
        return held / layers
    _set_checkpointing(trainer, False)
    anew: Scorer = trainer.make_scorer(trainer.scorer.teachers)
    whole = anew.bytes_per_token(_rows(trainer, min(trainer.whole_budget.thinking, _SHORT), _SHORT))
    _set_checkpointing(trainer, True)
    return 2 * whole / layers


def _fixed(trainer: Any, process: float) -> dict[str, float]:
    """What stays from step to step."""
    trained = _size(p for p in trainer.model.parameters() if p.requires_grad)
    held = {id(one.model): one.model for one in trainer.scorer.teachers.values() if one.model is not None}
    buckets = 2.0 if trainer.args.world_size > 1 else 1.0  # gradients are averaged in buckets of their own
    return {
        "weights": count_weight_bytes(trainer.model),
        "reference": sum((count_weight_bytes(model) for model in held.values()), 0.0),
        "gradients": buckets * trained,
        "moments": 2 * trained,
        "process": process,
    }


def _sampling(trainer: Any, layer: float, config: Any) -> dict[str, float]:
    """What sampling all rollouts of a generation takes; a cache holds a prompt once for its group if it is shared."""
    args, m = trainer.args, trainer.args.num_generations
    drawn = args.generation_batch_size // args.world_size
    lengths = sorted(map(len, trainer.train_dataset[PROMPT_IDS][:]), reverse=True)[: drawn // m]
    prompts = sum(lengths) * drawn // (m * len(lengths)) if trainer.layout is pack else drawn * lengths[0]
    completion = trainer.whole_budget.thinking + len(trainer.format.close_ids) + args.budget.answer
    key = count_key_bytes(config, 2 if args.bf16 or args.fp16 else _FLOAT32)
    return {
        "cache": float(key * (prompts + drawn * completion)),
        "logits": float(_COPIES * drawn * config.vocab_size * _FLOAT32),
        "prefill": layer * prompts,
    }


def _head(policy: Any, device: torch.device, accumulates: bool) -> float:
    """Two buffers of logits, and gradients of the head beside the one that is kept.

    Those of tied embeddings come from both ends of the model; where gradients are added up, the newest is apart first.
    """
    head, embeddings = policy.get_output_embeddings(), policy.get_input_embeddings()
    if head is None:
        return 0.0
    vocabulary = int(head.weight.shape[0])
    buffers = 2.0 * tokens_per_chunk(vocabulary, device) * vocabulary * _FLOAT32
    if not head.weight.requires_grad:
        return buffers
    tied = embeddings is not None and embeddings.weight is head.weight
    return buffers + float(int(tied) + int(accumulates)) * _FLOAT32 * int(head.weight.numel())


def _available(device: torch.device, held: float) -> float:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device))
    return float(psutil.virtual_memory().available) + held


def _without(parts: Mapping[str, float], name: str) -> dict[str, float]:
    return {key: size for key, size in parts.items() if key != name}


def _size(parameters: Any) -> float:
    return float(sum(int(p.numel() * p.element_size()) for p in parameters))
