"""Responses that begin with a given text: AdaCtrl's tag of difficulty, as its user gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.decoding.protocol import Decoding, DecodingTools
from qredit.samplers.protocol import Sampler
from qredit.samplers.think_then_answer import begin_thinking, go_on_thinking
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class begin_with(Decoding):
    """Every response begins with `text`, behind the opening of thinking, and the model goes on from there.

    The text was not sampled. It counts as thinking, whose budget is that of the run, and a rationale begins with it. A
    closing of which it holds a part is not seen.

    Args:
        text: the beginning, such as [Easy] or [Hard] for a model that was trained by `adactrl`.

    Raises:
        QreditError: no text.

    Source: arXiv 2505.18822 (AdaCtrl), whose user sets the budget by the tag; its released code puts "[Easy]" behind
    the rendered prompt. Difference: there prompt and tag are encoded as one text, here the tag by itself, so that the
    prompt's ids are those of every other sample.
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise QreditError(f"begin_with: text must be a text that is not empty, got {self.text!r}")

    def check_layout(self, format: TokenFormat, budget: TokenBudget) -> None:
        """Refuse a text that ends thinking, that the tokenizer cannot write, or behind which no token could be drawn.

        Raises:
            QreditError: as said.
        """
        ids = self._ids(format)
        size, written = len(ids), format.text(ids)
        if written.strip() != self.text.strip():
            raise QreditError(
                f"decode: the tokenizer turns the text of {self} into {written!r}; give one that it keeps"
            )
        if size >= budget.thinking:
            raise QreditError(
                f"decode: the text of {self} takes {size} tokens, and thinking may take {budget.thinking}; one token "
                "at least must be left to be drawn"
            )

    def _ids(self, format: TokenFormat) -> tuple[int, ...]:
        return tuple(format.rationale_ids(self.text))

    def play(
        self,
        tools: DecodingTools,
        sampler: Sampler,
        prompts: Sequence[Sequence[int]],
        examples: Sequence[Mapping[str, Any]],
        *,
        stop_tokens: Sequence[int],
        seed: int,
    ) -> list[Trajectory]:
        begun = [begin_thinking(prompt, self._ids(tools.format)) for prompt in prompts]
        return go_on_thinking(sampler, begun, tools.format, tools.budget, stop_tokens=stop_tokens, seed=seed)
