"""How a trained model is asked, as its card tells: the layout of a completion, and lines of Python that ask it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qredit.rollouts.chat_template import SAMPLE_QUESTION, append_opening, render_messages
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars


@dataclass(frozen=True)
class Usage:
    """What has to be known to ask a model as it was trained.

    Attributes:
        added: put behind a prompt, or behind what the chat template makes of messages, which may open thinking itself.
        closing: ends thinking.
        seam: the model writes it between the closing and an answer.
        end: ends an answer.
        thinking, answer: tokens of a completion.
        forced: tokens of a closing that is put behind thinking of full length.
        chat: prompts are messages.
        template: switches of the chat template.
    """

    added: str
    closing: str
    seam: str
    end: str
    thinking: int
    answer: int
    forced: int
    chat: bool
    template: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, format: TokenFormat, budget: TokenBudget, chat: bool, template: Mapping[str, Any]) -> "Usage":
        """The usage of a model that was trained in this format.

        Args:
            format: the layout of a completion, as ids of this tokenizer.
            budget: the most tokens of thinking and of answer.
            chat: prompts are messages.
            template: switches of the chat template.
        """
        strings = format.format
        return cls(
            _find_added(format, template) if chat else strings.opening,
            *(strings.closing, strings.seam, strings.end),
            thinking=budget.thinking,
            answer=budget.answer,
            forced=len(format.close_ids),
            chat=chat,
            template=template,
        )


def _find_added(format: TokenFormat, template: Mapping[str, Any]) -> str:
    """What is put behind the beginning of an assistant's turn, so that it ends with the opening."""
    try:
        text = render_messages([SAMPLE_QUESTION], format.tokenizer, start=True, **template)
    except QreditError:  # a template that wants other messages; it is taken not to open thinking
        text = ""
    return append_opening(text, format.format.opening).removeprefix(text)


def render_usage(usage: Usage) -> str:
    """The layout in a sentence for each part, and lines of Python, as Markdown."""
    return "\n\n".join(["\n".join(f"- {line}" for line in _layout(usage)), f"```python\n{make_snippet(usage)}\n```"])


def _layout(usage: Usage) -> Sequence[str]:
    begins = [f"the prompt ends with {to_code(usage.added)}"] if usage.added else []
    seam = f" follows behind {to_code(usage.seam)} and" if usage.seam else ""
    return [
        *begins,
        f"thinking ends with {to_code(usage.closing)}. In training that text was put behind {usage.thinking} tokens of "
        "thinking which had not ended, and the answer was drawn behind it",
        f"the answer{seam} ends with {to_code(usage.end)}, within {usage.answer} tokens",
    ]


def make_snippet(usage: Usage) -> str:
    """Lines of Python that ask one question greedily, by transformers alone.

    Args:
        usage: of the model.
    """
    switches = "".join(f", {name}={value!r}" for name, value in usage.template.items())
    text = (
        'tokenizer.apply_chat_template(\n    [{"role": "user", "content": question}], tokenize=False, '
        f"add_generation_prompt=True{switches}\n)"
    )
    begun = text if usage.chat else "question"
    behind = f".removeprefix({_quote(usage.seam)})" if usage.seam else ""
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'place = "."  # this folder, or the id of the model',
        "tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForCausalLM.from_pretrained(place)",
        'question = "…"',
        f"text = {begun} + {_quote(usage.added)}" if usage.added else f"text = {begun}",
        f'ids = tokenizer(text, add_special_tokens={not usage.chat}, return_tensors="pt").input_ids',
        f"out = model.generate(ids, max_new_tokens={usage.thinking + usage.forced + usage.answer}, do_sample=False)",
        "said = tokenizer.decode(out[0, ids.shape[1] :], clean_up_tokenization_spaces=False)",
        f"thinking, _, answer = said.partition({_quote(usage.closing)})",
        f"answer = answer{behind}.partition({_quote(usage.end)})[0]",
    ]
    return "\n".join(lines)


def to_code(text: str) -> str:
    """A text of others between backticks, on one line."""
    return "`" + escape_control_chars(json.dumps(text, ensure_ascii=False)[1:-1], keep="").replace("`", "'") + "`"


def _quote(text: str) -> str:
    """A text as Python writes it, which no fence of Markdown ends."""
    return repr(text).replace("`", "\\x60")
