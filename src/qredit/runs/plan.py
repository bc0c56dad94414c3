"""What a run would do, before it does it: rendered prompts, ids at the seam, sizes, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from transformers import PreTrainedTokenizerBase

from qredit.rollouts.answer_end import describe_unended_answers
from qredit.rollouts.format import TokenFormat
from qredit.tasks.overlap import Overlap

_DURING = {"sampling": "sampling", "scoring": "scoring without gradient", "update": "updating"}
_NAMES = {
    "weights": "weights",
    "reference": "weights of the reference",
    "gradients": "gradients",
    "moments": "moments of the optimiser",
    "process": "trainer and libraries",
    "cache": "keys and values",
    "logits": "logits of sampling",
    "prefill": "prompts read",
    "activations": "activations",
    "layer": "work in a layer",
    "head": "logits and gradients of the head",
    "trial": "the trial pass that measures rows",
}


@dataclass(frozen=True)
class Plan:
    """The facts that --dry-run shows; `as_dict` is its JSON.

    `examples` are those trained on; `left_out` were too long for the context. Lengths are in tokens. `prompt_ids` are
    the ids of `prompts`, each with its text. `model_notes` say what of the model's files was
    mended.
    """

    prompts: tuple[str, ...]
    prompt_ids: tuple[list[list[Any]], ...]
    seam: dict[str, Any]
    end_notice: str | None
    prompt_tokens: dict[str, float]
    answer_tokens: dict[str, float]
    examples: int
    left_out: int
    model_notes: tuple[str, ...]
    unparseable_golds: int
    answers_over_budget: int
    with_aliases: int
    data_notes: list[str]
    overlap: dict[str, Any]
    filtered: dict[str, int]
    groups_per_step: int
    rollouts_per_group: int
    steps_per_epoch: int
    parameters: int
    max_completion_length: int
    answer_budget: int
    memory_gib: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def list_data_notices(facts: Mapping[str, Any]) -> list[str]:
    """What someone should know of the data before a run, a line each."""
    left_out = facts["train_examples"] - facts["train_prompts"]
    told = (
        (left_out, f"of {facts['train_examples']} prompts were too long for the context and are left out"),
        (facts.get("without_rationale", 0), "rows have no rationale; they show the answer alone"),
        (facts["unparseable_golds"], "gold answers cannot be read by the reward; they are never rewarded"),
        (facts.get("with_aliases"), "prompts have several right answers; the likelihood is that of any of them"),
        (facts["answers_over_budget"], "gold answers are longer than answer_budget; no sampled answer can match them"),
    )
    ends = describe_unended_answers(facts.get("unended") or 0.0, facts.get("end", ""))
    counted = (f"{count} {what}" for count, what in told if count)
    ending = filter(None, (facts.get("end_notice"), ends))
    kept = []
    if "kept" in facts:
        kept.append(
            f"{facts['kept']} examples are kept, {facts['left_out_by_keep']} are left out by keep, "
            f"{facts['unprobed']} because they were not probed"
        )
    again = Overlap(**facts["overlap"]).describe() if "overlap" in facts else None
    return [*facts["data_notes"], *kept, *counted, *filter(None, (again,)), *ending, *facts.get("model_notes", ())]


def render_prompts(
    tokens: TokenFormat, prompts: Sequence[Any], count: int, template: dict[str, Any]
) -> tuple[str, ...]:
    """The first prompts as the model will see them.

    Args:
        tokens: the layout of a completion, as ids of this tokenizer.
        prompts: texts or chat messages.
        count: how many are shown.
        template: switches of the chat template.
    """
    return tuple(tokens.format.render(prompt, tokens.tokenizer, **template) for prompt in prompts[:count])


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[list[Any]]:
    """Ids, each with its text."""
    return [[token, tokenizer.decode([token])] for token in ids]


def describe_layout(tokens: TokenFormat, tokenizer: PreTrainedTokenizerBase, answer: str | None) -> dict[str, Any]:
    """The layout around one answer: its strings, and the ids at the seam and at the end, each with its text.

    Without an answer nothing is appended, and `answer` is null.

    Args:
        tokens: the layout of a completion, as ids of this tokenizer.
        tokenizer: of the model.
        answer: the reference answer; None where the data has none.
    """
    form = tokens.format
    return {
        "answer": answer,
        "layout": {"opening": form.opening, "closing": form.closing, "seam": form.seam, "end": form.end},
        "end_from": form.end_from,
        "closing": decode_ids(tokenizer, tokens.close_ids),
        "appended": [] if answer is None else decode_ids(tokenizer, tokens.answer_ids(answer)),
        "end": decode_ids(tokenizer, tokens.end_ids),
    }


def summarize_lengths(lengths: Sequence[int]) -> dict[str, float]:
    """Smallest, median and largest; empty of none."""
    return {} if not lengths else {"min": min(lengths), "median": median(lengths), "max": max(lengths)}


def format_memory(memory: Mapping[str, Any]) -> list[str]:
    """What `MemoryEstimate.as_dict` says, in lines."""
    phase, rows = memory["phase"], memory["rows_at_once"]
    cut = f"; {rows} of {memory['rows']} rows in one forward pass" if phase == "update" else ""
    lines = [
        f"memory: about {memory['peak']:.2f} GiB at the most, while {_DURING[phase]}, mostly "
        f"{_NAMES[memory['decided_by']]}{cut}"
    ]
    for name, parts in memory["parts"].items():
        shown = ", ".join(f"{_NAMES[part]} {size:.2f}" for part, size in parts.items() if size >= 0.005)
        lines.append(f"  {_DURING[name]}: {sum(parts.values()):.2f} GiB ({shown or 'all of it small'})")
    lines.append(
        f"  here {memory['available']:.2f} GiB can be had; the least that would run, with rows_per_forward=1, is about "
        f"{memory['least']:.2f} GiB"
    )
    if not memory["fits"]:
        lines.append(f"  it does not fit here: {memory['advice']}")
    return lines
