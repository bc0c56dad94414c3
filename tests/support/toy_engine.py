"""A second engine: a plain torch loop on one process, without TRL and accelerate, that learns through `qredit.engine`.

It is what another adapter has to bring: prompts in order, a sampler, a reward, an optimiser. All else is the step's.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from qredit.core.objective import Objective
from qredit.data.prompt_sampler import PromptSampler
from qredit.data.shuffled import ShuffledPrompts
from qredit.engine.backward import AutogradBackward
from qredit.engine.collation import Collator
from qredit.engine.collective import SingleProcess
from qredit.engine.learner import Learner, Learners
from qredit.engine.making import GenerationMaker
from qredit.engine.prompts import Prompts
from qredit.engine.sampling import RolloutSampler
from qredit.engine.scorer import Scorer
from qredit.engine.stage_state import StageState
from qredit.engine.step import MicrobatchPosition, Step
from qredit.engine.step_credit import StepCredit
from qredit.engine.step_log import StepLog, compute_metrics
from qredit.rollouts.collate import choose_tails
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.trajectory import Trajectory
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.share import share_prefix


@dataclass
class ToyEngine:
    """Trains a model with an objective.

    Attributes:
        draw: (ids of each prompt, a number that the seed depends on) → a trajectory for each.
        reward: the sampled answer's text and its row → a number.
        learners: models that learn beside the policy.
        m: rollouts per prompt.
        prompts: of one generation.
        window: micro-batches of an optimiser step.
        repeats: how often a generation is learned from.
    """

    model: Any
    objective: Objective
    format: TokenFormat
    tokenizer: Any
    draw: Callable[[list[list[int]], int], list[Trajectory]]
    reward: Callable[[str, Mapping], float]
    learners: Sequence[Learner] = ()
    m: int = 4
    prompts: int = 2
    window: int = 1
    repeats: int = 1
    learning_rate: float = 1e-3
    seed: int = 7
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        assert share_prefix(self.model) is None, "this engine packs rows"
        needs, alone, learners = self.objective.needs, SingleProcess(), Learners(self.learners)
        tails = choose_tails(needs)
        self.scorer = Scorer(
            needs=needs,
            tails=tails,
            temperature=1.0,
            layout=pack,
            policy=lambda: self.model,
            device=self.model.device,
            free_bytes=lambda: math.inf,
            rows_per_forward=10_000,
        )
        self.collator = Collator(
            *(alone, needs, tails, self.tokenizer.pad_token_id, self.scorer, self.format.close_ids),
            serves_several_steps=self.repeats > 1,
            learners=learners,
        )
        self.stages = StageState(self.objective)
        step_credit = StepCredit(self.window, self.stages, alone)
        self.step = Step(self.scorer, self.stages, step_credit, alone, AutogradBackward(), learners)
        self.generations = GenerationMaker(
            *(self.collator, self.scorer, self.stages, alone),
            rollouts=self.prompts * self.m // self.window,
            window=self.window,
            repeats=self.repeats,
            seed=self.seed,
        )
        self.rollout_sampler = RolloutSampler(alone, self.format, self.tokenizer, self.draw, self._rewards, {})
        self.log = StepLog(alone)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate, weight_decay=0.0)

    def _rewards(self, trajectories: Sequence[Trajectory]) -> list[float]:
        return [self.reward(one.response, one.example) for one in trajectories]

    def train(
        self, rows: Sequence[dict], generations: int, order: PromptSampler | None = None
    ) -> Iterator[dict[str, float]]:
        """What each optimiser step shows; a row holds `prompt_ids` and `answer_ids`."""
        order = ShuffledPrompts(len(rows), self.seed) if order is None else order
        prompts = Prompts(rows, order, SingleProcess(), self.prompts)
        for number in range(generations):
            prompts.next_generation()
            inputs = prompts.rows(prompts.asked, self.m)
            yield from self.learn(self.rollout_sampler.sampled(inputs, number, self.m), prompts)

    def learn(
        self, trajectories: list[Trajectory], prompts: Prompts | None = None, update: bool = True
    ) -> Iterator[dict[str, float]]:
        """The optimiser steps on some rollouts; without `update` the gradients of the first stay where they are."""
        self.model.train()
        objective, began = self.objective.at(0.0), self.steps
        generation = self.generations.make(self.model, trajectories, objective, began, self.m)
        uses = self.window * self.repeats
        for use in range(uses):
            complete = (use + 1) % self.window == 0
            place = MicrobatchPosition(
                use, complete=complete, ends_generation=use == uses - 1, off_policy=self.steps > began
            )
            loss, learned = self.step.take(self.model, objective, generation, place)
            loss.backward()
            self.log.add(objective, learned.batch)
            if prompts is not None and use < self.window:
                prompts.observe(learned.batch, complete, last=use == self.window - 1)
            if not complete:
                continue
            yield compute_metrics(objective, self.log.take()) | learned.logged
            if not update:
                return
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
