"""What draws the samples of an evaluation in another way than thinking and answering once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from qredit.rewards import Scorer
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.answers import Play
from qredit.samplers.protocol import Sampler
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class DecodingTools:
    """What a rule may use beside the sampler.

    Attributes:
        format: the layout of a completion, as ids of this tokenizer.
        budget: the most tokens of thinking and of answer.
        scorer: says which answers are one.
        sampler_at: a sampler of the same model at another temperature.
    """

    format: TokenFormat
    budget: TokenBudget
    scorer: Scorer
    sampler_at: Callable[[float], Sampler]


class Decoding(ABC):
    """A rule: a frozen dataclass of its arguments."""

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Those it draws at beside that of the evaluation."""
        return ()

    @property
    def least(self) -> int:
        """Samples of a question that it needs."""
        return 1

    def check_size(self, k: int) -> None:
        """Refuse a k that is less than the rule needs.

        Raises:
            QreditError: names the rule and both numbers.
        """
        if k < self.least:
            raise QreditError(f"decode: {self} needs k of at least {self.least}, got {k}")

    def check_layout(self, format: TokenFormat, budget: TokenBudget) -> None:  # noqa: B027
        """Refuse a layout or a budget under which the rule cannot be followed; most can be under all.

        Args:
            format: the layout of a completion, as ids of the model's tokenizer.
            budget: the most tokens of thinking and of answer.

        Raises:
            QreditError: says what is wrong.
        """

    def make_play(self, tools: DecodingTools) -> Play:
        """What draws a trajectory for each prompt; rows of one question stand behind each other, told by their id."""
        return partial(self.play, tools)

    @abstractmethod
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
        """One trajectory per prompt, in their order.

        Args:
            tools: of the evaluation.
            sampler: what draws tokens at the temperature of the evaluation.
            prompts: the ids of each, opening included.
            examples: the row of each; those of one id that stand behind each other are one question's.
            stop_tokens: ids that end a text.
            seed: all draws are a function of it.
        """
