"""What a run would do, before it does it: rendered prompts, ids at the seam, sizes, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from transformers import PreTrainedTokenizerBase

from qredit.rollout.ends import unended_notice
from qredit.rollout.format import TokenFormat
from qredit.rollout.sample import Budget

_FLOAT32 = 4


@dataclass(frozen=True)
class Plan:
    """The facts that --dry-run shows; `as_dict` is its JSON.

    `examples` are those trained on; `left_out` were too long for the context. Lengths are in tokens. `prompt_ids` are
    the ids of `prompts`, each with its text.
    """

    prompts: tuple[str, ...]
    prompt_ids: tuple[list[list[Any]], ...]
    seam: dict[str, Any]
    end_notice: str | None
    prompt_tokens: dict[str, float]
    answer_tokens: dict[str, float]
    examples: int
    left_out: int
    unparseable_golds: int
    answers_over_budget: int
    groups_per_step: int
    rollouts_per_group: int
    steps_per_epoch: int
    parameters: int
    memory_gib: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def notices(facts: Mapping[str, Any]) -> list[str]:
    """What someone should know of the data before a run, a line each."""
    left_out = facts["train_examples"] - facts["train_prompts"]
    told = (
        (left_out, f"of {facts['train_examples']} prompts were too long for the context and are left out"),
        (facts["unparseable_golds"], "gold answers cannot be read by the reward; they are never rewarded"),
        (facts["answers_over_budget"], "gold answers are longer than answer_budget; no sampled answer can match them"),
    )
    ends = unended_notice(facts.get("unended") or 0.0, facts.get("end", ""))
    return [*(f"{count} {what}" for count, what in told if count), *filter(None, (facts.get("end_notice"), ends))]


def rendered_prompts(
    tokens: TokenFormat, prompts: Sequence[Any], count: int, template: dict[str, Any]
) -> tuple[str, ...]:
    """The first prompts as the model will see them."""
    return tuple(tokens.format.render(prompt, tokens.tokenizer, **template) for prompt in prompts[:count])


def shown_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[list[Any]]:
    """Ids, each with its text."""
    return [[token, tokenizer.decode([token])] for token in ids]


def seam(tokens: TokenFormat, tokenizer: PreTrainedTokenizerBase, answer: str) -> dict[str, Any]:
    """The layout around one answer: its strings, and the ids at the seam and at the end, each with its text."""
    form = tokens.format
    return {
        "answer": answer,
        "layout": {"opening": form.opening, "closing": form.closing, "seam": form.seam, "end": form.end},
        "end_from": form.end_from,
        "closing": shown_ids(tokenizer, tokens.close_ids),
        "appended": shown_ids(tokenizer, tokens.answer_ids(answer)),
        "end": shown_ids(tokenizer, tokens.end_ids),
    }


def spread(lengths: Sequence[int]) -> dict[str, float]:
    """Smallest, median and largest."""
    return {"min": min(lengths), "median": median(lengths), "max": max(lengths)}


def memory(
    parameters: int, trained: int, config: Any, rows_sampled: int, rows_trained: int, prompt: int, budget: Budget
) -> dict[str, float]:
    """A rough estimate in GiB, before any overhead: weights and optimiser, the sampling cache, activations of a pass.

    Weights, gradients and Adam's two moments are float32. The cache holds keys and values of every row that is sampled
    at once; activations are taken as 16 numbers per layer, hidden unit and token, without gradient checkpointing.
    """
    length = prompt + budget.thinking + budget.answer
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * rows_sampled * length * config.num_hidden_layers * heads * width * _FLOAT32
    activations = 16 * rows_trained * length * config.num_hidden_layers * config.hidden_size * _FLOAT32
    parts = {
        "weights_and_optimiser": _FLOAT32 * (parameters + 3 * trained),
        "sampling_cache": cache,
        "activations": activations,
    }
    return {name: round(size / 2**30, 3) for name, size in parts.items()}
