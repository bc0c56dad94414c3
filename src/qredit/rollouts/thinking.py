"""Known ways in which models write their thinking, each with where it is described."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qredit.rollouts.template import ANCHOR, ASKED, rendered
from qredit.rollouts.tokenizer import Tokenizer, control_tokens
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class Thinking:
    """How a family of models writes a rationale before an answer.

    Attributes:
        opening, closing, seam: as in `Format`, in a chat.
        marks: tokens that its tokenizers hold.
        source: where this is written down.
    """

    opening: str
    closing: str
    seam: str
    marks: tuple[str, ...]
    source: str


TAGS = Thinking(
    "<think>\n", "</think>", "\n\n", ("</think>",), "chat templates of Qwen3 and of the DeepSeek-R1 distills"
)
KNOWN = (
    TAGS,
    Thinking(
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "",
        ("<|channel|>", "<|message|>", "<|start|>", "<|end|>"),
        "gpt-oss: openai/harmony, docs/format.md, 'Chat conversation format'",
    ),
    Thinking(
        "[THINK]",
        "[/THINK]",
        "",
        ("[THINK]", "[/THINK]"),
        "Magistral: mistral-common, SpecialTokens.begin_think, end_think",
    ),
    Thinking(
        "<seed:think>",
        "</seed:think>",
        "\n",
        ("<seed:think>", "</seed:think>"),
        "Seed-OSS: its chat template, as kept in ggml-org/llama.cpp, models/templates/ByteDance-Seed-OSS.jinja",
    ),
    Thinking(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_RESPONSE|>",
        ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>"),
        "Command: vllm, reasoning/cohere_command_reasoning_parser.py; its chat template for <|START_RESPONSE|>",
    ),
    Thinking(
        "<|channel>thought\n",
        "<channel|>",
        "",
        ("<|channel>", "<channel|>"),
        "Gemma 4: its chat template, as kept in ggml-org/llama.cpp, models/templates/gemma4.jinja",
    ),
)


def thinking_of(tokenizer: Tokenizer) -> Thinking | None:
    """The way in which a tokenizer's model thinks, or None.

    "</think>" in the vocabulary is enough. The others' marks also lie unused in tokenizers of models that do not think,
    so that the chat template has to write the closing's last mark, too.
    """
    vocabulary, template = tokenizer.get_vocab(), str(tokenizer.chat_template or "")
    for known in KNOWN:
        if all(mark in vocabulary for mark in known.marks) and (known is TAGS or known.marks[-1] in template):
            return known
    return None


def seam_of(thinking: Thinking, tokenizer: Tokenizer, template: Mapping[str, Any]) -> str:
    """What the chat template writes between the closing and an answer; where it does not show, what is known."""
    thought = {"role": "assistant", "content": ANCHOR, "reasoning_content": "Qthought", "thinking": "Qthought"}
    try:
        text = rendered([ASKED, thought], tokenizer, start=False, **template)
    except QreditError:
        return thinking.seam
    head, found, _ = text.rpartition(ANCHOR)
    _, closed, seam = head.rpartition(thinking.closing)
    plain = not seam.strip() or seam in control_tokens(tokenizer)
    return seam if found and closed and plain else thinking.seam
