"""A judge on this machine: a chat model that transformers loads."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qredit.rewards.judge.endpoint import Question, count_replies
from qredit.rollouts.tokenizer import encode
from qredit.selection.judges.protocol import Judge, Verdicts
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class local(Judge):
    """A chat model on this machine: one question after the other, on the CPU, in float32.

    For small models, which are worth no server. Between two words it decides without writing: by which one's first
    token is likelier as the beginning of its reply. So it always decides. It writes greedily where a grade is asked
    for. A prompt that does not fit its context has no reply.

    Args:
        model: a folder, a model id, or 'smollm2'.
        max_tokens: of a reply that it writes.

    Raises:
        QreditError: no text as model, or less than one token.
    """

    model: str
    max_tokens: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise QreditError(f"model of local must be a text, got {self.model!r}")
        check_count("local: max_tokens", self.max_tokens, 1)

    @property
    def varies(self) -> bool:
        return False

    def check_model(self) -> None:
        """Load the tokenizer, which must have a chat template.

        Raises:
            QreditError: there is no such model, or it is no chat model.
        """
        if not self._tokenizer.chat_template:
            raise QreditError(f"the tokenizer of the judge '{self.model}' has no chat template")

    def ask(self, questions: Sequence[Question]) -> list[str | None]:
        return [self._reply(question) for question in questions]

    def decide(self, questions: Sequence[Question], words: tuple[str, str]) -> Verdicts:
        found = tuple(self._decide(question, words) for question in questions)
        return Verdicts(found, count_replies(found, found))

    @cached_property
    def _path(self) -> str:
        from qredit.runs.load import resolve_model_path  # here, as below: to read a rule loads no engine

        return resolve_model_path(self.model, "jsonl", None)

    @cached_property
    def _tokenizer(self) -> Any:
        from qredit.runs.load import load_tokenizer

        return load_tokenizer(self._path)

    @cached_property
    def _network(self) -> Any:
        from qredit.runs.load import load_model

        return load_model(self._path).eval()

    def _encode(self, question: Question) -> list[int]:
        """The ids of a question, up to where the reply begins."""
        task, about = question
        messages = [{"role": "system", "content": task}, {"role": "user", "content": about}]
        return list(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    def _fits(self, ids: Sequence[int], reply: int) -> bool:
        from qredit.engine.model_limits import get_context_length

        longest = get_context_length(self._network)
        return longest is None or len(ids) + reply <= longest

    def _reply(self, question: Question) -> str | None:
        import torch

        ids = self._encode(question)
        if not self._fits(ids, self.max_tokens):
            return None
        prompt = torch.tensor([ids])
        with torch.no_grad():
            found = self._network.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self.max_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        return str(self._tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True))

    def _decide(self, question: Question, words: tuple[str, str]) -> str | None:
        import torch

        ids = self._encode(question)
        if not self._fits(ids, 1):
            return None
        first = [encode(self._tokenizer, word)[0] for word in words]
        with torch.no_grad():
            logits = self._network(torch.tensor([ids])).logits[0, -1, first]
        return words[int(logits.argmax())]
