"""The strings around rationale and answer as options give them, before a tokenizer says the rest."""

from dataclasses import dataclass
from typing import Any

from qredit.rollouts.format import Format, TokenFormat
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class FormatSettings:
    """The strings around rationale and answer; None is chosen by the tokenizer.

    Attributes:
        chat: whether prompts go through the chat template; None if there is one.
    """

    opening: str | None = None
    closing: str | None = None
    seam: str | None = None
    end: str | None = None
    chat: bool | None = None

    def make(self, tokenizer: Any) -> TokenFormat:
        """The layout of completions, as ids of a tokenizer."""
        chat = self.uses_chat(tokenizer)
        return TokenFormat(Format.of(tokenizer, self.opening, self.closing, self.seam, self.end, chat=chat), tokenizer)

    def uses_chat(self, tokenizer: Any) -> bool:
        """Whether prompts go through the chat template.

        Raises:
            QreditError: they are to, and there is none.
        """
        if self.chat and not tokenizer.chat_template:
            raise QreditError("format.chat is on, but the tokenizer has no chat template")
        return bool(tokenizer.chat_template) if self.chat is None else self.chat

    def prompt_of(self, messages: Any, tokenizer: Any) -> Any:
        """The prompt that a row's messages are: themselves, or, without a chat template, the text of the only one.

        Raises:
            QreditError: several messages, which nothing can put into one text.
        """
        if isinstance(messages, str) or self.uses_chat(tokenizer):
            return messages
        if len(messages) != 1:
            raise QreditError(f"a prompt of {len(messages)} messages needs a chat template")
        return messages[0]["content"]
