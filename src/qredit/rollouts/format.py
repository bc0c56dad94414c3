"""How a completion is laid out: opening, rationale, closing, seam, answer, end; as text and as token ids.

    prompt + opening | z …  closing | seam answer end
                       sampled        appended as ids (the gold answer), or sampled (ŷ)

The opening belongs to the prompt. Seam and end belong to the answer: the model has to write them, when it is sampled as
when its likelihood is taken. Sampled ids are never decoded and encoded again: text is only looked at to see where
thinking ends.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from qredit.rollouts.chat_template import (
    append_opening,
    find_end_of_turn,
    find_turn_tokens,
    render_continuation,
    render_messages,
)
from qredit.rollouts.think_tags import detect_seam, detect_think_tags
from qredit.rollouts.tokenizer import (
    Tokenizer,
    encode,
    encode_all,
    encode_in_context,
    encode_prompts,
    find_first_control_token,
    get_control_tokens,
    list_encodings_in_context,
)
from qredit.utils.errors import QreditError

__all__ = ["EitherStopString", "Format", "StopString", "Prompt", "TokenFormat", "Tokenizer", "encode", "is_chat"]

Prompt = str | list[dict[str, Any]]
_GIVEN, _TEMPLATE, _TOKENIZER = "answer_end", "the chat template", "the tokenizer"


def is_chat(prompts: Iterable[Prompt], tokenizer: Tokenizer) -> bool:
    """Whether prompts are a chat: messages, which go through the chat template, or texts that spell its turns."""
    turns = find_turn_tokens(tokenizer)
    return any(not isinstance(prompt, str) or any(token in prompt for token in turns) for prompt in prompts)


@dataclass(frozen=True)
class Format:
    """The strings around a rationale and an answer.

    Attributes:
        opening: put at the end of the prompt, unless the chat template already ends with it.
        closing: the string that ends thinking; forced when the budget ends.
        seam: text that the model writes between closing and answer; its tokens are scored and trained as part of the
            answer, and never forced when sampling.
        end: the end-of-answer text; its tokens too are part of the answer.
        end_from: where the end was taken from, in words.
    """

    opening: str
    closing: str
    seam: str
    end: str
    end_from: str = field(default=_GIVEN, compare=False)

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        opening: str | None = None,
        closing: str | None = None,
        seam: str | None = None,
        end: str | None = None,
        *,
        chat: bool | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> "Format":
        """The format that fits a tokenizer; any string given wins.

        A thinking model's tokenizer (`think_tags.KNOWN_TAGS`) gets its marks, on lines of their own when there is a
        chat template. Any other gets no opening, and "\\nAnswer:\\n" as the closing. An answer ends with what follows
        an assistant's text in the chat template, up to its first control token; without one, with end-of-text.

        Args:
            tokenizer: of the model.
            opening: text that opens thinking.
            closing: text that ends it.
            seam: text between closing and answer.
            end: text that ends an answer.
            chat: whether prompts go through the chat template; None if there is one.
            template: switches of the chat template.

        Raises:
            QreditError: nothing says what ends an answer; an empty closing or end.
        """
        opens, closes, joins = _layout(tokenizer, template or {})
        ends, source = _end(tokenizer, chat, template or {}) if end is None else (end, _GIVEN)
        chosen = cls(
            opening=opens if opening is None else opening,
            closing=closes if closing is None else closing,
            seam=joins if seam is None else seam,
            end=ends,
            end_from=source,
        )
        for name in ("closing", "end"):
            if not getattr(chosen, name):
                raise QreditError(f"the text that marks the {name} must not be empty: it is how it is recognised")
        return chosen

    def render(self, prompt: Prompt, tokenizer: Tokenizer, **template: Any) -> str:
        """The prompt as text, up to and including the opening of the thinking span.

        Chat messages go through the chat template (`template` are its switches, such as enable_thinking). A template
        that already opens the span is recognised; one that also closes it is refused. A last message of an assistant is
        gone on with, not closed.

        Raises:
            QreditError: messages without a chat template, or that it refuses; a prompt whose thinking is closed.
        """
        if isinstance(prompt, str):
            return append_opening(prompt, self.opening)
        if not tokenizer.chat_template:
            raise QreditError("the prompts are chat messages, but the tokenizer has no chat template; give strings")
        closing = self.closing.strip()
        if prompt and isinstance(prompt[-1], Mapping) and prompt[-1].get("role") == "assistant":
            if closing and closing in str(prompt[-1].get("content")):
                raise QreditError(f"the last message is an assistant's and closes thinking ({closing!r}) itself")
            return render_continuation(prompt, tokenizer, self.opening, **template)
        text = render_messages(prompt, tokenizer, start=True, **template)
        if closing and text.rstrip().endswith(closing):
            raise QreditError(
                f"the chat template closes thinking ('{closing}') before the model starts; "
                "set chat_template_kwargs to switch thinking on (enable_thinking: true)"
            )
        return append_opening(text, self.opening)


def _layout(tokenizer: Tokenizer, template: Mapping[str, Any]) -> tuple[str, str, str]:
    """Opening, closing and seam that fit a tokenizer."""
    thinking = detect_think_tags(tokenizer)
    if thinking is None:
        return "", "\nAnswer:\n", ""
    if not tokenizer.chat_template:
        return thinking.opening.rstrip("\n"), thinking.closing, ""
    return thinking.opening, thinking.closing, detect_seam(thinking, tokenizer, template)


def _end(tokenizer: Tokenizer, chat: bool | None, template: Mapping[str, Any]) -> tuple[str, str]:
    """What ends an answer, and where that is taken from."""
    templated = bool(tokenizer.chat_template) and chat is not False
    end = find_end_of_turn(tokenizer, template) if templated else None
    if end is not None:
        return end, _TEMPLATE
    if tokenizer.eos_token is None:
        raise QreditError("the tokenizer has no end-of-text token; set answer_end to the text that ends an answer")
    return str(tokenizer.eos_token), _TOKENIZER


@dataclass(frozen=True)
class StopString:
    """A string to be found in a growing list of ids, at the first token that completes it."""

    tokenizer: Tokenizer
    text: str

    @cached_property
    def candidates(self) -> list[int]:
        """Tokens that can complete the string: those whose text holds its last character."""
        ids = sorted(self.tokenizer.get_vocab().values())  # there may be gaps: len(tokenizer) is not the largest id + 1
        texts = self.tokenizer.batch_decode([[token] for token in ids], skip_special_tokens=False)
        last = self.text[-1]
        split = not last.isascii()  # a byte-level token may then hold only part of the character
        space = last == " "  # SentencePiece decoders drop the space that a text begins with
        return [
            token
            for token, text in zip(ids, texts, strict=True)
            if last in text or (split and "\ufffd" in text) or (space and not text)
        ]

    @cached_property
    def candidate_set(self) -> frozenset[int]:
        """The same, to ask of one token whether it is among them."""
        return frozenset(self.candidates)

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

    @cached_property
    def _before(self) -> tuple[list[int], str]:
        """A token to decode behind, and its text: SentencePiece decoders drop the space that a text begins with."""
        ids = encode(self.tokenizer, "a")
        return ids, _decode(self.tokenizer, ids)

    def _decoded(self, ids: Sequence[int]) -> str:
        before, text = self._before
        return _decode(self.tokenizer, [*before, *ids]).removeprefix(text)


@dataclass(frozen=True)
class EitherStopString(StopString):
    """The first of two strings in a growing list of ids.

    Attributes:
        text: the one that an engine looks for which knows one alone; the ids decide all the same.
        other: the other one.
    """

    other: StopString

    @cached_property
    def candidates(self) -> list[int]:
        """Tokens that can complete either."""
        return sorted({*super().candidates, *self.other.candidates})

    @property
    def window(self) -> int:
        """How many of the last tokens can matter to either."""
        return max(super().window, self.other.window)

    def length(self, ids: Sequence[int]) -> int | None:
        """How many of the last tokens hold the string that the very last one completes; else None."""
        own = super().length(ids)
        return self.other.length(ids) if own is None else own


@dataclass(frozen=True)
class TokenFormat:
    """A format in the ids of one tokenizer: what is forced, what is appended, and how ends are found.

    Raises:
        QreditError: the tokenizer cannot write the closing or the end, so that they would never be found.
    """

    format: Format
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        for option, text in (("thinking_closing", self.format.closing), ("answer_end", self.format.end)):
            ids = encode_in_context(self.tokenizer, text)
            written = StopString(self.tokenizer, text)._decoded(ids)
            if text not in written:
                raise QreditError(
                    f"the tokenizer turns {text!r} into {written!r}; set {option} to a text that it keeps"
                )

    @cached_property
    def close_ids(self) -> list[int]:
        """The closing as it is forced."""
        return encode_in_context(self.tokenizer, self.format.closing)

    @cached_property
    def end_ids(self) -> list[int]:
        """The end of an answer, as it is behind most answers."""
        return encode_in_context(self.tokenizer, self.format.end)

    @cached_property
    def stop_ids(self) -> list[int]:
        """The control token that an end is or ends with, which stops an answer; none if the end is mere text."""
        return [id for id in self.end_ids[-1:] if id in self._control.values()]

    @cached_property
    def closing(self) -> StopString:
        """Finds the end of thinking."""
        return StopString(self.tokenizer, self.format.closing)

    @cached_property
    def end(self) -> StopString | None:
        """Finds a textual end of answer; None when it ends with a control token, which is looked for by its id."""
        return None if self.stop_ids else StopString(self.tokenizer, self.format.end)

    @cached_property
    def _control(self) -> dict[str, int]:
        return get_control_tokens(self.tokenizer)

    def prompt_ids(self, prompt: Prompt, **template: Any) -> list[int]:
        """Ids of a prompt, opening included, as by `encode_rendered`."""
        return self.encode_rendered([prompt], [self.format.render(prompt, self.tokenizer, **template)])[0]

    def encode_rendered(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[list[int]]:
        """Ids of rendered prompts. A plain string gets the tokenizer's own special tokens; a template has its own.

        Args:
            prompts: texts, or chat messages.
            texts: the same, each as `Format.render` writes it.
        """
        plain = [text for prompt, text in zip(prompts, texts, strict=True) if isinstance(prompt, str)]
        chats = [text for prompt, text in zip(prompts, texts, strict=True) if not isinstance(prompt, str)]
        plain_ids, chat_ids = iter(encode_prompts(self.tokenizer, plain)), iter(encode_all(self.tokenizer, chats))
        return [next(plain_ids if isinstance(prompt, str) else chat_ids) for prompt in prompts]

    def answer_ids(self, answer: str) -> list[int]:
        """seam + answer + end as ids, to be appended after the closing: what a model writes there.

        Raises:
            QreditError: the answer spells the end of answers or a control token, so that no sampled answer can be it;
                or the text does not fall apart into tokens behind the closing, whose ids are there already.
        """
        self._check_spelling(answer)
        ids = self._behind_closing(answer)
        if ids is not None:
            return ids
        near = encode_in_context(self.tokenizer, self.format.closing + self.format.seam + answer + self.format.end)
        at = next((i for i, (a, b) in enumerate(zip(self.close_ids, near, strict=False)) if a != b), len(near) - 1)
        raise QreditError(
            f"answer {answer!r} does not join at the seam: with the seam {self.format.seam!r} behind it, the closing "
            f"{self.format.closing!r} merges into {self.tokenizer.decode(near[at : at + 1])!r}; {self._advice(answer)}"
        )

    def rationale_ids(self, rationale: str) -> list[int]:
        """A given rationale as ids, to stand between the opening and the closing; none for an empty one.

        Raises:
            QreditError: it spells a control token or the closing, so that thinking would end inside it.
        """
        shown = rationale if len(rationale) <= 60 else f"{rationale[:59]}…"
        control = find_first_control_token(rationale, self._control)
        if control is not None:
            raise QreditError(f"rationale {shown!r} spells the control token {control[1]!r}; take it out")
        if self.format.closing in rationale:
            raise QreditError(
                f"rationale {shown!r} holds {self.format.closing!r}, which ends thinking; take it out, or "
                "set another thinking_closing"
            )
        return encode_in_context(self.tokenizer, rationale) if rationale else []

    def _behind_closing(self, answer: str) -> list[int] | None:
        """The ids behind the closing's own, or None where the closing merges with what follows."""
        close, text = self.close_ids, self.format.closing + self.format.seam + answer + self.format.end
        found = (ids for ids in list_encodings_in_context(self.tokenizer, text) if ids[: len(close)] == close)
        whole = next(found, None)
        return None if whole is None else whole[len(close) :]

    def _check_spelling(self, answer: str) -> None:
        control = find_first_control_token(answer, self._control)
        if control is not None:
            raise QreditError(
                f"answer {answer!r} spells the control token {control[1]!r}, which the tokenizer would read as such; "
                "take it out"
            )
        for option, mark, does in (
            ("answer_end", self.format.end, "ends answers"),
            ("thinking_closing", self.format.closing, "ends thinking"),
        ):
            if mark in answer:
                raise QreditError(
                    f"answer {answer!r} holds {mark!r}, which {does}: no sampled one can match it; set another {option}"
                )

    def _advice(self, answer: str) -> str:
        """What makes this answer join, as found by trying."""
        if answer.strip() and answer != answer.strip() and self._behind_closing(answer.strip()) is not None:
            return "take the white space around it away"
        for seam in ("", "\n", " ", "\n\n"):
            if replace(self, format=replace(self.format, seam=seam))._behind_closing(answer) is not None:
                return f"set answer_seam to {seam!r}, with which it does"
        return "set thinking_closing to another text, such as one that ends in a line end or in a token of its own"

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text without special tokens. For logs only."""
        return _decode(self.tokenizer, ids, skip_special_tokens=True)

    def response_text(self, ids: Sequence[int]) -> str:
        """A sampled answer as text: special tokens, the seam and the end left out. For rewards and logs only."""
        end = self.format.end
        if self.stop_ids and list(ids[-1:]) == self.stop_ids:
            ids, end = ids[:-1], end.removesuffix(_decode(self.tokenizer, self.stop_ids))
        return self.text(ids).removeprefix(self.format.seam).removesuffix(end)


def _decode(tokenizer: Tokenizer, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False))
