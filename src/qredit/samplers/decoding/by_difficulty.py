"""Temperature and budget by how hard a question looks: DiffAdapt, with pilot samples in the place of its probe."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from qredit.rewards import Scorer
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.answers import mean_logp
from qredit.samplers.decoding.protocol import Decoding, DecodingTools
from qredit.samplers.protocol import Sampler
from qredit.samplers.think_then_answer import think
from qredit.utils.errors import QreditError, check_count
from qredit.utils.seed import STRATEGY_STREAM, derive_seed


@dataclass(frozen=True)
class Strategy:
    """How the samples of a question are drawn: at which temperature, with which share of the thinking budget."""

    temperature: float
    share: float


EASY, NORMAL, HARD = Strategy(0.5, 0.4), Strategy(0.8, 1.0), Strategy(0.4, 0.5)
STRATEGIES = (EASY, NORMAL, HARD)
"""arXiv 2510.19669. A hard question gets little: it is to fail fast."""


@dataclass(frozen=True)
class by_difficulty(Decoding):
    """The first `pilot` samples of a question are drawn as ever; they say how the others are drawn.

        normal   agreement ≥ alpha and surprisal ≤ beta     temperature 0.8, the whole thinking budget
        hard     agreement < gamma, and not normal          temperature 0.4, half of it
        easy     else                                       temperature 0.5, four tenths of it

    The agreement is the share of the pilots that give the most frequent answer, the surprisal the mean of -log p over
    their sampled tokens in nats: at temperature 1 an estimate of the mean entropy. All k samples count.

    Args:
        pilot: samples that are drawn first, fewer than k.
        alpha: least agreement of a normal question, 0 … 1.
        beta: most surprisal of a normal question, nats.
        gamma: agreement below which a question is hard, 0 … alpha.

    Raises:
        QreditError: a number outside these ranges.

    Source: arXiv 2510.19669 (DiffAdapt), by notes of others. The strategies are its. It sets alpha, beta and gamma by
    eye, so they have no default here. Differences: it labels training questions by the accuracy of ten samples and
    their entropy, and trains a probe on hidden states that foretells the label from the prompt, so that it draws no
    pilots. Here agreement stands for the accuracy, which nobody knows at test time.
    """

    pilot: int
    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        check_count("by_difficulty: pilot", self.pilot, 1)
        if not 0 <= self.alpha <= 1:
            raise QreditError(f"by_difficulty: alpha must lie between 0 and 1, got {self.alpha}")
        if not 0 <= self.gamma <= self.alpha:
            raise QreditError(f"by_difficulty: gamma must lie between 0 and alpha={self.alpha}, got {self.gamma}")
        if not 0 <= self.beta < math.inf:
            raise QreditError(f"by_difficulty: beta must be 0 or more, got {self.beta}")

    @property
    def temperatures(self) -> tuple[float, ...]:
        return tuple(one.temperature for one in STRATEGIES)

    @property
    def least(self) -> int:
        """One more than the pilots."""
        return self.pilot + 1

    def choose(self, agreement: float, surprisal: float) -> Strategy:
        """The strategy of a question.

        Args:
            agreement: of its pilots, 0 … 1.
            surprisal: of their tokens, nats.
        """
        if agreement >= self.alpha and surprisal <= self.beta:
            return NORMAL
        return HARD if agreement < self.gamma else EASY

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
        rows = [list(own) for _, own in groupby(range(len(prompts)), key=lambda row: examples[row]["id"])]
        found: dict[int, Trajectory] = {}

        def draw(places: Sequence[int], of: Sampler, budget: TokenBudget, own_seed: int) -> None:
            asked = [prompts[place] for place in places]
            drawn = think(of, asked, tools.format, budget, stop_tokens=stop_tokens, seed=own_seed)
            found.update(zip(places, drawn, strict=True))

        draw([place for own in rows for place in own[: self.pilot]], sampler, tools.budget, seed)
        chosen = [self._look([found[p] for p in own[: self.pilot]], tools.format, tools.scorer) for own in rows]
        for number, strategy in enumerate(STRATEGIES):
            places = [p for own, one in zip(rows, chosen, strict=True) if one == strategy for p in own[self.pilot :]]
            if places:
                budget = TokenBudget(max(1, int(strategy.share * tools.budget.thinking)), tools.budget.answer)
                own_seed = derive_seed(seed, STRATEGY_STREAM + number)
                draw(places, tools.sampler_at(strategy.temperature), budget, own_seed)
        return [found[place] for place in range(len(prompts))]

    def _look(self, pilots: Sequence[Trajectory], format: TokenFormat, scorer: Scorer) -> Strategy:
        """The strategy that the pilots of a question call for.

        Args:
            pilots: its first samples.
            format: reads their answers.
            scorer: says which are one.
        """
        votes = scorer.grouped([format.response_text(one.answer_ids) for one in pilots])
        known = [logp for one in pilots if (logp := mean_logp(one)) is not None]
        surprisal = -statistics.fmean(known) if known else 0.0
        return self.choose(max(map(len, votes), default=0) / len(pilots), surprisal)
