"""What episodes are tested with: a sampler that says what it is told, environments, tools, and tokenizers that call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import trl
from transformers import PreTrainedTokenizerFast

from qredit.environments.protocol import Step
from qredit.rollouts.format import Format, TokenFormat
from qredit.samplers.protocol import Completion, Request, StopReason
from tests.support import tiny

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST]{{ m['content'] }}[/INST]"
    "{% elif m['role'] == 'tool' %}[TOOL_RESULTS]{\"content\": {{ m['content'] | tojson }}, \"call_id\": "
    "\"{{ m['tool_call_id'] }}\"}[/TOOL_RESULTS]{% elif m['tool_calls'] %}[TOOL_CALLS][{% for c in m['tool_calls'] %}"
    "{\"name\": \"{{ c['function']['name'] }}\", \"arguments\": {{ c['function']['arguments'] | tojson }}, "
    "\"id\": \"{{ c['id'] }}\"}{% endfor %}]<|im_end|>{% else %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[TOOL_CALLS]"),
    *("[INST]", "[/INST]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
ADDED = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


@lru_cache
def templated(name: str, thinking: bool = True) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with a chat template of TRL's folder, or one like Mistral's, and the tokens that it writes."""
    template = MISTRAL if name == "mistral" else (TEMPLATES / f"{name}.jinja").read_text()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizer(thinking).backend_tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        bos_token="<end>",
        chat_template=template,
    )
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    made.add_tokens(list(ADDED))
    return made


def token_format(tokenizer: Any, **changes: Any) -> TokenFormat:
    return TokenFormat(Format.of(tokenizer, **changes), tokenizer)


@dataclass
class ScriptedSampler:
    """Says what `reply` makes of everything that stands before, in ids, up to an end or the most tokens.

    Attributes:
        reply: (text before, number of the request) → what is said next.
        calls: the prompts of each call, as ids.
    """

    tokenizer: Any
    reply: Callable[[str, int], str]
    calls: list[list[tuple[int, ...]]] = field(default_factory=list)

    def sync(self, model: Any) -> None:
        pass

    def sample(self, requests: Sequence[Request], seed: int) -> list[Completion]:
        self.calls.append([request.prompt_ids for request in requests])
        return [self._one(request, number) for number, request in enumerate(requests)]

    def _one(self, request: Request, number: int) -> Completion:
        text = self.reply(self.tokenizer.decode(list(request.prompt_ids), skip_special_tokens=False), number)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] + [5] * request.max_tokens
        for length in range(1, request.max_tokens + 1):
            said = tuple(ids[:length])
            stop = None
            if said[-1] in request.stop_token_ids:
                stop = StopReason.END
            elif request.stop_string is not None and request.stop_string.length(said) is not None:
                stop = StopReason.MARKER
            elif length == request.max_tokens:
                stop = StopReason.LENGTH
            if stop is not None:
                return Completion(said, (-0.5,) * length, stop)
        raise AssertionError("no end")


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    if a == 13:
        raise ValueError("unlucky <|im_end|>\x1b[2J")
    if a == 99:
        while True:
            pass
    return a + b


def repeat(text: str, times: int = 1) -> str:
    """Repeat a text.

    Args:
        text: what is repeated.
        times: how often.
    """
    return text * times


@dataclass
class Counting:
    """Counts up to the example's number: each action is said back, with a reward of its own; the last ends it."""

    faults: Mapping[int, Exception] = field(default_factory=dict)
    closed: int = 0

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        self.place, self.end = 0, int(example.get("steps", 2))
        return Step(example.get("first", ""), state_key="0")

    def step(self, action: str) -> Step:
        self.place += 1
        if self.place in self.faults:
            raise self.faults[self.place]
        return Step(
            f"you said {action}",
            reward=None if self.place == 2 else float(self.place - 1),
            done=self.place == self.end,
            state_key=str(self.place % 2),
            info={"actions": 1},
        )

    def close(self) -> None:
        self.closed += 1
