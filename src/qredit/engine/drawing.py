"""Generations drawn by a rule: what `qredit.drawing` rules are given to draw, score and measure with."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from qredit.data.encoding import PROMPT_IDS
from qredit.drawing.protocol import Drawing, Row
from qredit.engine.sampling import RolloutSampler
from qredit.engine.teacher import Forward
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import Trajectory
from qredit.utils.seed import DRAWING_STREAM, derive_seed


@dataclass(frozen=True)
class RuleSampler:
    """Draws generations by a rule, on one process of several.

    Attributes:
        rule: of the run.
        rollouts: draws plainly, and scores.
        draw_at: (ids of each prompt, a number that the seed depends on, temperature) → a trajectory for each.
        go_on: (beginnings, a number that the seed depends on) → a trajectory for each.
        measure_entropy: rollouts → the entropy of each of their tokens.
        score: rewards of rollouts that say nothing of the policy.
        seed: of the run.
    """

    rule: Drawing
    rollouts: RolloutSampler
    draw_at: Callable[[list[list[int]], int, float], list[Trajectory]]
    go_on: Callable[[Sequence[Trajectory], int], list[Trajectory]]
    measure_entropy: Callable[[Sequence[Trajectory]], list[list[float]]]
    score: Callable[[Sequence[Trajectory]], list[float]]
    seed: int

    def sampled(
        self, inputs: Sequence[Mapping[str, Any]], number: int, m: int
    ) -> tuple[list[Trajectory], dict[str, float]]:
        """As `RolloutSampler.sampled`, by the rule; and what it logs.

        Args:
            inputs: rows of the data set, each repeated m times.
            number: that of the generation.
            m: rollouts per prompt.
        """
        start = time.perf_counter()
        tools = GenerationTools(self, number)
        found = self.rule.draw(inputs[::m], m, tools)
        self.rollouts.seconds += time.perf_counter() - start
        return found, tools.told


@dataclass(frozen=True)
class GenerationTools:
    """The `DrawingTools` of one generation.

    Attributes:
        sampler: of the run.
        number: that of the generation.
        told: what the rule has logged so far.
    """

    sampler: RuleSampler
    number: int
    told: dict[str, float] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Any:
        return self.sampler.rollouts.tokenizer

    @property
    def seed(self) -> int:
        together = self.sampler.rollouts.collective
        return derive_seed(self.sampler.seed, self.number, together.rank, DRAWING_STREAM)

    def draw(self, rows: Sequence[Row], part: int = 0, temperature: float | None = None) -> list[Trajectory]:
        """One rollout behind the prompt of each row, not scored yet.

        Args:
            rows: of the data set, one for each rollout.
            part: number of this draw in the generation.
            temperature: in the place of the run's own.
        """
        prompts = [list(row[PROMPT_IDS]) for row in rows]
        if temperature is None:
            return self.sampler.rollouts.draw_rows(rows, prompts, self._stream(part))
        return [forget_logp(one) for one in self.sampler.draw_at(prompts, self._stream(part), temperature)]

    def go_on(self, beginnings: Sequence[Trajectory], part: int) -> list[Trajectory]:
        return self.sampler.go_on(beginnings, self._stream(part))

    def measure_entropy(self, drawn: Sequence[Trajectory]) -> list[list[float]]:
        return self.sampler.measure_entropy(drawn)

    def score(self, drawn: Sequence[Trajectory], rows: Sequence[Row], m: int, apart: bool = False) -> list[Trajectory]:
        """The rollouts with texts, groups, rewards and made fields.

        Args:
            drawn: the m of each prompt together.
            rows: the data set's row of each of them.
            m: rollouts per prompt.
            apart: their rewards are no part of what is logged.
        """
        reward = self.sampler.score if apart else None
        return self.sampler.rollouts.scored(drawn, rows, self.number, m, reward)

    def gather(self, values: list[Any]) -> list[Any]:
        return self.sampler.rollouts.collective.gather(values)

    def log(self, name: str, value: float) -> None:
        self.told[name] = value

    def _stream(self, part: int) -> int:
        """What the draws of a part depend on: those of part 0 are the plain ones."""
        return self.number if part == 0 else DRAWING_STREAM + derive_seed(self.number, part) % DRAWING_STREAM


def forget_logp(drawn: Trajectory) -> Trajectory:
    """A rollout without what its sampler said of its tokens, which is not their density under the policy."""
    return replace(drawn, segments=tuple(replace(segment, logp=None) for segment in drawn.segments))


def measure_token_entropy(
    drawn: Sequence[Trajectory], forward: Forward, pad: int, device: torch.device
) -> list[list[float]]:
    """The entropy in nats of the distribution that each token behind the prompt was drawn from.

    Args:
        drawn: rollouts, one at least.
        forward: how the policy runs.
        pad: the id that fills prompts up.
        device: where rows are put.
    """
    groups = {prompt: number for number, prompt in enumerate(dict.fromkeys(one.prompt for one in drawn))}
    known = [replace(one, group=groups[one.prompt]) for one in drawn]  # they have no groups yet, and share prompts
    rows = collate(known, ("response",), pad, 0, device)
    told = forward.scores(forward.model, rows)["entropy"].float().tolist()
    return [values[: len(one.ids)] for values, one in zip(told, drawn, strict=True)]
