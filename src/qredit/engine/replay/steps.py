"""Optimiser steps on rollouts that are learned from again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from qredit.core.chain import When
from qredit.core.reduce import Reduction
from qredit.engine.backward import Backward
from qredit.engine.collective import SingleProcess
from qredit.engine.replay.memory import ReplayMemory
from qredit.engine.replay.protocol import ReplayRule
from qredit.engine.replay.rows import KeptRow, join_rows
from qredit.engine.scorer import Scorer
from qredit.engine.step import MicrobatchLoss, ScoredMicrobatch
from qredit.engine.step_credit import evaluate_across_ranks
from qredit.utils.seed import REPLAY_STREAM, derive_seed


@dataclass(eq=False)
class Replay:
    """Learns again from rollouts of earlier generations, in one process.

    Attributes:
        rule: says from which, and how.
        reduction: of the run's objective.
        scorer: of the run.
        backward: of the parts of a loss that are differentiated before the last.
        rollouts: of an optimiser step.
        seed: of the run.
        memory: what is kept.
        logged: what the last `iterate_losses` says of itself.
    """

    rule: ReplayRule
    reduction: Reduction
    scorer: Scorer
    backward: Backward
    rollouts: int
    seed: int
    memory: ReplayMemory = field(init=False)
    logged: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._objective = self.rule.make_objective(self.reduction)
        self.memory = ReplayMemory(self.rule, self._objective.needs)
        self._scorer = replace(self.scorer, needs=self._objective.needs, tails=("response",), teachers={})

    def observe(self, learned: ScoredMicrobatch) -> None:
        """Take up a micro-batch that was learned from for the first time."""
        self.memory.observe(learned)

    def iterate_losses(self, model: nn.Module, step: int) -> Iterator[Tensor]:
        """The loss of each optimiser step that is to follow the last one on a generation, as the weights are then.

        The caller differentiates it and steps before it asks for the next. The log-probabilities of the policy that
        sampled stand in the ratios, however old they are.

        Args:
            model: the wrapped one.
            step: number of the run's optimiser step, from 1.
        """
        seed = derive_seed(self.seed, step, REPLAY_STREAM)
        factor = self.rule.factor(step)
        chosen = self.memory.choose(seed, step) if factor else None
        self.memory.end_generation(step)
        self.logged = {"replay/rows": 0.0, "replay/kept": float(len(self.memory.kept)), "replay/factor": factor}
        if chosen is None:
            return
        rows, replayed = chosen
        self.logged["replay/rows"] = float(len(rows))
        if replayed.baseline is not None:
            self.logged["replay/baseline"] = replayed.baseline
        for start in range(0, len(rows), self.rollouts):
            part = slice(start, start + self.rollouts)
            advantage = None if replayed.advantage is None else replayed.advantage[part]
            loss = self._loss(model, rows[part], advantage, derive_seed(seed, start), factor)
            self.logged["replay/loss"] = self.logged.get("replay/loss", 0.0) + float(loss.detach())
            yield loss

    def _loss(
        self, model: nn.Module, kept: Sequence[KeptRow], advantage: Tensor | None, seed: int, factor: float
    ) -> Tensor:
        rows = join_rows(kept, advantage, seed, self.scorer.device)
        scored = rows.batch
        if self._objective.when is When.UPDATE:
            scored = self._scorer.score_batch_no_grad(model, rows, off_policy=True)
        (credited,), _ = evaluate_across_ranks(self._objective, [scored], {}, SingleProcess())
        # The factor is the loss's: covariances, which have bounds, are those of the advantages as they are.
        counts = {name: count / factor for name, count in self._objective.denominators(scored, credited).items()}
        loss = MicrobatchLoss(self._scorer, model, self._objective, rows, counts, {}, self.backward, off_policy=True)
        return loss.batch_and_loss(credited)[1]
