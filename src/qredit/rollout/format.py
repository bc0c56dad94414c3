"""How a completion is laid out: opening, rationale, closing, seam, answer, end; as text and as token ids.

    prompt + opening | z …  closing | seam answer end
                       sampled        appended as ids (the gold answer), or sampled (ŷ)

The opening belongs to the prompt. Sampled ids are never decoded and encoded again: text is only looked at to see where
thinking ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from qredit.errors import QreditError

Prompt = str | list[dict[str, Any]]


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    eos_token: str | None
    eos_token_id: int | None
    chat_template: Any

    def __call__(self, text: Any, **kwargs: Any) -> Any: ...
    def __len__(self) -> int: ...
    def decode(self, token_ids: Any, **kwargs: Any) -> str: ...
    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]: ...
    def get_vocab(self) -> dict[str, int]: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class Format:
    """The strings around a rationale and an answer.

    Attributes:
        opening: put at the end of the prompt, unless the chat template already ends with it.
        closing: the string that ends thinking; forced when the budget ends.
        seam: fixed text between closing and answer; its tokens are scored and trained as part of the answer.
        end: the end-of-answer text; its tokens too are part of the answer.
    """

    opening: str
    closing: str
    seam: str
    end: str

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        opening: str | None = None,
        closing: str | None = None,
        seam: str | None = None,
        end: str | None = None,
    ) -> "Format":
        """The format that fits a tokenizer; any string given wins.

        A vocabulary that holds "</think>" gets the tags of thinking models, on lines of their own when there is a chat
        template. Any other gets no opening, and "\\nAnswer:\\n" as the closing.
        """
        thinks, chats = "</think>" in tokenizer.get_vocab(), bool(tokenizer.chat_template)
        if end is None and tokenizer.eos_token is None:
            raise QreditError("the tokenizer has no end-of-text token; set answer_end to the text that ends an answer")
        defaults = ("<think>\n" if chats else "<think>", "</think>", "\n\n" if chats else "")
        plain = ("", "\nAnswer:\n", "")
        opens, closes, joins = defaults if thinks else plain
        chosen = cls(
            opening=opens if opening is None else opening,
            closing=closes if closing is None else closing,
            seam=joins if seam is None else seam,
            end=str(tokenizer.eos_token) if end is None else end,
        )
        for name in ("closing", "end"):
            if not getattr(chosen, name):
                raise QreditError(f"the text that marks the {name} must not be empty: it is how it is recognised")
        return chosen

    def render(self, prompt: Prompt, tokenizer: Tokenizer, **template: Any) -> str:
        """The prompt as text, up to and including the opening of the thinking span.

        Chat messages go through the chat template (`template` are its switches, such as enable_thinking). A template
        that already opens the span is recognised; one that also closes it is refused.

        Raises:
            QreditError: messages without a chat template; a template that renders a closed thinking span.
        """
        if isinstance(prompt, str):
            text = prompt
        elif not tokenizer.chat_template:
            raise QreditError("the prompts are chat messages, but the tokenizer has no chat template; give strings")
        else:
            text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **template)
            if self.closing.strip() and text.rstrip().endswith(self.closing.strip()):
                raise QreditError(
                    f"the chat template closes thinking ('{self.closing.strip()}') before the model starts; "
                    "set chat_template_kwargs to switch thinking on (enable_thinking: true)"
                )
        opened = bool(self.opening.strip()) and text.rstrip().endswith(self.opening.strip())
        return text if opened else text + self.opening


def encode(tokenizer: Tokenizer, text: str, special: bool = False) -> list[int]:
    """Token ids of a text; `special` adds what the tokenizer puts around a whole sequence (such as a BOS token)."""
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


@dataclass(frozen=True)
class Marker:
    """A string to be found in a growing list of ids, at the first token that completes it."""

    tokenizer: Tokenizer
    text: str

    @cached_property
    def candidates(self) -> list[int]:
        """Tokens that can complete the string: those whose text holds its last character."""
        texts = self.tokenizer.batch_decode(
            [[token] for token in range(len(self.tokenizer))], skip_special_tokens=False
        )
        last = self.text[-1]
        split = not last.isascii()  # a byte-level token may then hold only part of the character
        return [token for token, text in enumerate(texts) if last in text or (split and "\ufffd" in text)]

    @property
    def window(self) -> int:
        """How many of the last tokens can matter: every token holds a byte at least."""
        return len(self.text.encode()) + 1

    def length(self, ids: Sequence[int]) -> int | None:
        """How many of the last tokens hold the string, if the very last one completes it; else None.

        A token may carry more than the string, before or behind it. Only the last `window` ids are looked at.
        """
        tail = list(ids[-self.window :])
        if not tail or self.text not in self._decoded(tail) or self.text in self._decoded(tail[:-1]):
            return None
        return next(n for n in range(1, len(tail) + 1) if self.text in self._decoded(tail[-n:]))

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


@dataclass(frozen=True)
class TokenFormat:
    """A format in the ids of one tokenizer: what is forced, what is appended, and how ends are found."""

    format: Format
    tokenizer: Tokenizer

    @cached_property
    def close_ids(self) -> list[int]:
        """The closing as it is forced."""
        return encode(self.tokenizer, self.format.closing)

    @cached_property
    def closing(self) -> Marker:
        """Finds the end of thinking."""
        return Marker(self.tokenizer, self.format.closing)

    @cached_property
    def end(self) -> Marker | None:
        """Finds a textual end of answer; None when the end is one special token, which is looked for by its id."""
        ids = encode(self.tokenizer, self.format.end)
        special = getattr(self.tokenizer, "all_special_ids", ())
        return None if len(ids) == 1 and ids[0] in special else Marker(self.tokenizer, self.format.end)

    def prompt_ids(self, prompt: Prompt, **template: Any) -> list[int]:
        """Ids of a rendered prompt. A plain string gets the tokenizer's own special tokens; a template has its own."""
        text = self.format.render(prompt, self.tokenizer, **template)
        return encode(self.tokenizer, text, special=isinstance(prompt, str))

    def answer_ids(self, answer: str) -> list[int]:
        """seam + answer + end as ids, to be appended after the closing.

        Raises:
            QreditError: the text does not fall apart into these tokens at the seam, so that what is appended would not
                be what a model writes: ids(closing + seam) + ids(answer + end) ≠ ids(closing + seam + answer + end).
        """
        head = self.format.closing + self.format.seam
        parts = encode(self.tokenizer, head) + encode(self.tokenizer, answer + self.format.end)
        whole = encode(self.tokenizer, head + answer + self.format.end)
        close = self.close_ids
        if parts != whole or whole[: len(close)] != close:
            at = next((i for i, (a, b) in enumerate(zip(close + parts, whole, strict=False)) if a != b), len(close))
            raise QreditError(
                f"answer {answer!r} does not join at the seam: after {self.format.closing!r} the seam "
                f"{self.format.seam!r} merges with its neighbour into {self.tokenizer.decode(whole[at : at + 1])!r}; "
                "set answer_seam (or thinking_closing) so that the pieces stay apart"
            )
        return whole[len(close) :]

    def response_text(self, ids: Sequence[int]) -> str:
        """A sampled answer as text: special tokens and a textual end left out. For rewards and logs only."""
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return text if self.end is None else text.removesuffix(self.format.end)
