"""Known ways in which models write their thinking, each with where it is described."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qredit.rollouts.chat_template import ANCHOR, SAMPLE_QUESTION, render_messages
from qredit.rollouts.tokenizer import Tokenizer, get_control_tokens
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class ThinkTags:
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


DEFAULT_TAGS = ThinkTags(
    "<think>\n", "</think>", "\n\n", ("</think>",), "chat templates of Qwen3 and of the DeepSeek-R1 distills"
)
KNOWN_TAGS = (
    DEFAULT_TAGS,
    ThinkTags(
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "",
        ("<|channel|>", "<|message|>", "<|start|>", "<|end|>"),
        "gpt-oss: openai/harmony, docs/format.md, 'Chat conversation format'",
    ),
    ThinkTags(
        "[THINK]",
        "[/THINK]",
        "",
        ("[THINK]", "[/THINK]"),
        "Magistral: mistral-common, SpecialTokens.begin_think, end_think",
    ),
    ThinkTags(
        "<seed:think>",
        "</seed:think>",
        "\n",
        ("<seed:think>", "</seed:think>"),
        "Seed-OSS: its chat template, as kept in ggml-org/llama.cpp, models/templates/ByteDance-Seed-OSS.jinja",
    ),
    ThinkTags(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_RESPONSE|>",
        ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>"),
        "Command: vllm, reasoning/cohere_command_reasoning_parser.py; its chat template for <|START_RESPONSE|>",
    ),
    ThinkTags(
        "<|channel>thought\n",
        "<channel|>",
        "",
        ("<|channel>", "<channel|>"),
        "Gemma 4: its chat template, as kept in ggml-org/llama.cpp, models/templates/gemma4.jinja",
    ),
)


def detect_think_tags(tokenizer: Tokenizer) -> ThinkTags | None:
    """The way in which a tokenizer's model thinks, or None.

    "</think>" in the vocabulary is enough. The others' marks also lie unused in tokenizers of models that do not think,
    so that the chat template has to write the closing's last mark, too.
    """
    vocabulary, template = tokenizer.get_vocab(), str(tokenizer.chat_template or "")
    for known in KNOWN_TAGS:
        if all(mark in vocabulary for mark in known.marks) and (known is DEFAULT_TAGS or known.marks[-1] in template):
            return known
    return None


def detect_seam(thinking: ThinkTags, tokenizer: Tokenizer, template: Mapping[str, Any]) -> str:
    """What the chat template writes between the closing and an answer; where it does not show, what is known.

    Args:
        thinking: the model's marks of thinking.
        tokenizer: of the model.
        template: switches of the chat template.
    """
    thought = {"role": "assistant", "content": ANCHOR, "reasoning_content": "Qthought", "thinking": "Qthought"}
    try:
        text = render_messages([SAMPLE_QUESTION, thought], tokenizer, start=False, **template)
    except QreditError:
        return thinking.seam
    head, found, _ = text.rpartition(ANCHOR)
    _, closed, seam = head.rpartition(thinking.closing)
    plain = not seam.strip() or seam in get_control_tokens(tokenizer)
    return seam if found and closed and plain else thinking.seam
