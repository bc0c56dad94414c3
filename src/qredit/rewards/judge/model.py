"""A process reward model: a language model that scores every step of a rationale in one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qredit.utils.errors import QreditError
from qredit.utils.extras import require_extras
from qredit.utils.sanitize import summarize_error


@dataclass(frozen=True, eq=False)
class ProcessRewardModel:
    """Scores steps as P(good) - P(bad) in [-1, 1], read where each step ends.

    Attributes:
        model: a transformers model whose `logits` (1, L, V) at a step's last token hold the two verdicts.
        tokenizer: its own, which need not be the policy's: it reads text.
        bad, good: which of the V numbers are the verdicts. With a token classifier its two labels, with a causal model
            the ids of the two tokens that it was trained to say after a step.
        separator: what it was trained to see at the end of each step.
        most_tokens: longest input; a step that ends beyond it scores 0.
    """

    model: Any
    tokenizer: Any
    bad: int = 0
    good: int = 1
    separator: str = "\n\n"
    most_tokens: int = 8192

    @classmethod
    def load(cls, path: str, separator: str = "\n\n", most_tokens: int = 8192) -> "ProcessRewardModel":
        """A token classifier with two labels, 0 bad and 1 good, from a folder or a model id.

        Args:
            path: folder or model id.
            separator: text between steps.
            most_tokens: longest text that it reads, in tokens.

        Raises:
            QreditError: it cannot be loaded, or has another number of labels.
        """
        tokenizer, model = _loaded("AutoModelForTokenClassification", path)
        if model.config.num_labels != 2:
            raise QreditError(f"a process reward model has 2 labels, '{path}' has {model.config.num_labels}")
        return cls(model, tokenizer, separator=separator, most_tokens=most_tokens)

    @classmethod
    def load_causal(
        cls, path: str, good: str, bad: str, separator: str = "\n\n", most_tokens: int = 8192
    ) -> "ProcessRewardModel":
        """A causal model that says `good` or `bad` after a step, each one token, from a folder or a model id.

        Args:
            path: folder or model id.
            good: word for a good step.
            bad: word for a bad step.
            separator: text between steps.
            most_tokens: longest text that it reads, in tokens.

        Raises:
            QreditError: it cannot be loaded, or a verdict is not one token.
        """
        tokenizer, model = _loaded("AutoModelForCausalLM", path)
        said_bad, said_good = (_one_token(tokenizer, text) for text in (bad, good))
        return cls(model, tokenizer, said_bad, said_good, separator, most_tokens)

    @torch.no_grad()
    def score(self, question: str, steps: Sequence[str]) -> list[float]:
        """The score of each step of one rationale, given the question; [] for no steps."""
        ids, ends = self.lay_out(question, steps)
        inside = [end for end in ends if end < self.most_tokens]
        if not inside:
            return [0.0] * len(steps)
        device = next(self.model.parameters()).device
        logits = self.model(input_ids=torch.tensor([ids[: self.most_tokens]], device=device)).logits[0, inside]
        bad, good = logits[:, [self.bad, self.good]].double().softmax(1).unbind(1)
        return [*(good - bad).tolist(), *[0.0] * (len(ends) - len(inside))]

    def lay_out(self, question: str, steps: Sequence[str]) -> tuple[list[int], list[int]]:
        """The ids of question and steps, and where each step ends among them."""
        ids = list(self.tokenizer.encode(question + self.separator))
        ends = []
        for step in steps:
            ids += self.tokenizer.encode(step + self.separator, add_special_tokens=False)
            ends.append(len(ids) - 1)
        return ids, ends


def _loaded(kind: str, path: str) -> tuple[Any, Any]:
    require_extras("a process reward model", "trl")
    import transformers  # here: judging by an endpoint, and whoever collates, needs none of it

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        return tokenizer, getattr(transformers, kind).from_pretrained(path).eval()
    except (OSError, ValueError) as error:
        raise QreditError(f"no process reward model at '{path}': {summarize_error(error)}") from None


def _one_token(tokenizer: Any, text: str) -> int:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise QreditError(f"a verdict must be one token of the process reward model, {text!r} is {len(ids)}")
    return int(ids[0])
