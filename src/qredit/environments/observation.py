"""What an environment says, as the ids that stand between two turns; nothing that was sampled is encoded again.

    … call <end of turn> | framing  result  framing  opening | thinking …
      sampled              one segment, neither sampled nor trained

The framing is what the chat template writes there: it is taken from a rendered exchange, behind the assistant's end of
turn. Without a chat template a result stands between tags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from qredit.environments.calls import make_sample_call
from qredit.environments.protocol import Messages
from qredit.rollouts.chat_template import SAMPLE_QUESTION, append_opening, render_messages
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.tokenizer import encode_in_context
from qredit.utils.errors import QreditError

RESULT_TAGS = ("<tool_response>", "</tool_response>")
CUT = " … [cut]"
_SAID = "qassistantsaid"


@dataclass(frozen=True)
class Observation:
    """An observation as ids.

    Attributes:
        ids: framing and opening of the next turn included.
        cut: it was longer than its budget.
    """

    ids: tuple[int, ...]
    cut: bool = False


@dataclass(frozen=True)
class ObservationFormat:
    """How observations are written for one tokenizer.

    Attributes:
        tokens: the layout of a completion, as ids of this tokenizer.
        chat: whether prompts go through the chat template.
        template: switches of the chat template.
    """

    tokens: TokenFormat
    chat: bool
    template: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, said: str | Messages, limit: int, ended: bool) -> Observation:
        """The ids of an observation; a text that is too long is cut at its end, and says so.

        Args:
            said: a text, or messages.
            limit: the most tokens, framing included.
            ended: the turn before ended by itself; else its end is written here.

        Raises:
            QreditError: the chat template refuses the messages, or the framing alone is longer.
        """
        messages = self._as_messages(said)
        ids = self._ids(messages, ended)
        if len(ids) <= limit:
            return Observation(tuple(ids))
        sizes = [len(message["content"]) for message in messages]
        while len(ids) > limit:
            if not any(sizes) and len(messages) > 1:
                lost = {**messages[0], "content": f"error: the results of {len(messages)} calls do not fit"}
                return replace(self.encode([lost], limit, ended), cut=True)
            if not any(sizes):  # nothing is left but the framing
                raise QreditError(
                    f"observation_budget={limit} holds no observation: what stands around one takes {len(ids)} tokens; "
                    "set it to more"
                )
            share = min(limit / len(ids), 0.95)
            sizes = [int(size * share) for size in sizes]
            cut = [
                {**message, "content": _shorten(message["content"], size)}
                for message, size in zip(messages, sizes, strict=True)
            ]
            ids = self._ids(cut, ended)
        return Observation(tuple(ids), cut=True)

    def check(self, limit: int, tool: bool) -> None:
        """Refuse a budget that holds no observation, and a template that holds none.

        Args:
            limit: the most tokens of one, framing included.
            tool: observations are results of tools.

        Raises:
            QreditError: as `encode`.
        """
        message = {"role": "tool" if tool else "user", "name": "tool", "content": "x" * 8 * max(limit, 1)}
        self.encode([message if tool else {"role": "user", "content": message["content"]}], limit, ended=False)

    def neutralize(self, text: str) -> str:
        """The text with a space inside whatever the tokenizer would take for one of its marks.

        What an environment says is not trusted: it must not end a turn or open another one.
        """
        found = True
        while found:
            found = False
            for mark in self._marks:
                if mark in text:
                    text, found = text.replace(mark, f"{mark[0]} {mark[1:]}"), True
        return text

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        """Added tokens of the tokenizer that are no mere white space or letter, and the tags of results."""
        added = getattr(self.tokens.tokenizer, "added_tokens_decoder", {})
        texts = {str(token).strip() for token in added.values()} | set(RESULT_TAGS)
        return tuple(sorted((text for text in texts if len(text) > 1), key=lambda text: (-len(text), text)))

    def _as_messages(self, said: str | Messages) -> list[dict[str, Any]]:
        given = [{"role": "user", "content": said}] if isinstance(said, str) else [dict(one) for one in said]
        return [{**message, "content": self.neutralize(message["content"])} for message in given]

    def _ids(self, messages: Sequence[Mapping[str, Any]], ended: bool) -> list[int]:
        text = self._behind_turn(messages) if self.chat else _write_plainly(messages)
        ids = encode_in_context(self.tokens.tokenizer, append_opening(text, self.tokens.format.opening))
        return ids if ended else [*self.tokens.end_ids, *ids]

    def _behind_turn(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """What the chat template writes behind an assistant's end of turn, up to where the next one thinks."""
        tokenizer, end = self.tokens.tokenizer, self.tokens.format.end
        called = any(message["role"] == "tool" for message in messages)
        turn = make_sample_call(_SAID, {}) if called else {"role": "assistant", "content": _SAID}
        text = render_messages([SAMPLE_QUESTION, turn, *messages], tokenizer, start=True, **self.template)
        _, found, rest = text.rpartition(_SAID)
        end = end.lstrip()
        if not found or end not in rest:
            raise QreditError(
                f"the chat template does not end an assistant's turn with {end!r} where an observation follows; set "
                "answer_end to what does"
            )
        return rest[rest.index(end) + len(end) :]


def _write_plainly(messages: Sequence[Mapping[str, Any]]) -> str:
    """Observations without a chat template: results of tools between tags, all else as it is."""
    texts = []
    for message in messages:
        content = message["content"]
        texts.append(f"{RESULT_TAGS[0]}{content}{RESULT_TAGS[1]}" if message["role"] == "tool" else content)
    return "\n" + "\n".join(texts) + "\n"


def _shorten(text: str, size: int) -> str:
    return text if len(text) <= size else text[:size] + CUT
