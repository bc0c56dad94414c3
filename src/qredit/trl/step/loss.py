"""The loss of a micro-batch: in one forward pass where its rows fit, else scored first and differentiated in chunks."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qredit.core.batch import RolloutBatch
from qredit.core.chain import TOLD, State, kinds
from qredit.core.objective import Credited, Objective, sum_terms
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.install import score_chosen
from qredit.shared_prefix.layout import Continuing
from qredit.shared_prefix.packing import going_on, prompts_of
from qredit.trl.step.passes import Passes, Scores, fill, unscored_is_nan
from qredit.utils.errors import QreditError


@dataclass(frozen=True, eq=False)
class MicrobatchLoss:
    """The loss of some rows under an objective.

    Attributes:
        model: the wrapped one.
        counts: what each term of the objective is divided by.
        state: that of stateful stages.
    """

    passes: Passes
    model: nn.Module
    objective: Objective
    rows: Rows
    counts: Mapping[str, float]
    state: Mapping[str, State]

    def of(self, credited: Credited | None) -> tuple[RolloutBatch, Tensor]:
        """The batch with what the forward passes told, and the loss.

        Rows that carry no coefficient are scored without gradient and left out of the differentiated passes. Where the
        others fit one forward, coefficients come from that same forward unless they are known before.
        """
        passes, rows = self.passes, self.rows
        whole = torch.arange(len(rows.batch.mask))
        if credited is None and len(passes.chunks(rows, whole)) == 1:
            if not self.objective.draws:
                told = passes.score(self.model, rows)
                batch = passes.scored(rows.batch, told)
                return batch, self._sum(told, batch, self._credited(batch))
            if passes.prompts_can_be_kept() and rows.reference_hidden is None:  # those are of all rows, in their order
                return self._of_chosen_rows()
        scores: Scores = {}
        if credited is None:
            passes.score_without_gradient(self.model, rows, whole, scores, only=self._enough())
            credited = self._credited(passes.scored(rows.batch, scores))
        else:
            passes.score_without_gradient(self.model, rows, (~credited.learning).nonzero()[:, 0], scores)
        loss = self._of_live_rows(credited, scores)
        return passes.scored(rows.batch, scores), loss

    def _of_live_rows(self, credited: Credited, scores: Scores) -> Tensor:
        """Forward and backward over the rows that carry a coefficient, chunk by chunk; fills in their `scores`.

        The last chunk's loss is left for the caller to differentiate; what the others contribute is added to it as a
        constant, so that the logged loss is the whole one. Where no row carries any, one of them takes part all the
        same: gradients are averaged over processes.
        """
        passes, accelerator = self.passes, self.passes.run.accelerator
        chunks = passes.chunks(self.rows, _live(credited))
        done = torch.zeros((), device=accelerator.device)
        for number, chunk in enumerate(chunks):
            part = self.rows.select(chunk)
            told = passes.score(self.model, part)
            fill(scores, self.rows, chunk, told)
            loss = self._sum(told, passes.scored(part.batch, told), credited.select(chunk))
            if number == len(chunks) - 1:
                return done + loss
            if passes.run.model.training:
                with accelerator.no_sync(self.model):
                    accelerator.backward(loss)
            done = done + loss.detach()
        raise AssertionError("there is always a last chunk")

    def _of_chosen_rows(self) -> tuple[RolloutBatch, Tensor]:
        """`of` where all rows are scored before those that carry a coefficient are known: prompts computed once."""
        start = time.perf_counter()
        passes, rows, only = self.passes, self.rows, self._enough()
        prompts = prompts_of(rows)
        layout = going_on(prompts, rows)
        scores: Scores = {}
        chosen: list[tuple[Tensor, Credited]] = []

        def choose(told: Scores) -> Continuing:
            fill(scores, rows, torch.arange(len(rows.batch.mask)), unscored_is_nan(told, only))
            passes.seconds += time.perf_counter() - start
            credited = self._credited(passes.scored(rows.batch, scores))
            live = _live(credited)
            chosen.append((live, credited.select(live)))
            return going_on(prompts, rows.select(live))

        layout = layout if only is None else layout.only(only)
        told = score_chosen(self.model, layout, choose, passes.temperature, passes.wanted(rows))
        live, credited = chosen[0]
        fill(scores, rows, live, told)
        own = passes.scored(rows.select(live).batch, told)
        return passes.scored(rows.batch, scores), self._sum(told, own, credited)

    def _sum(self, told: Scores, batch: RolloutBatch, credited: Credited) -> Tensor:
        return sum_terms(self.objective.numerators(told["logp"], batch, credited), self.counts)

    def _credited(self, batch: RolloutBatch) -> Credited:
        return credited_by(self.objective, batch, self.state)

    def _enough(self) -> Tensor | None:
        """The tokens whose scores the coefficients depend on, where that is the gold answer's alone; None is all."""
        needs = self.objective.needs
        if self.passes.run.off_policy:
            needs = needs | self.objective.needs_off_policy
        return None if kinds(needs) & (TOLD - {"answer_logp"}) else self.rows.batch.answer


def credited_by(objective: Objective, batch: RolloutBatch, state: Mapping[str, State]) -> Credited:
    """The objective on rows whose denominators are known already.

    Raises:
        QreditError: a stage changes the denominator, which only a stage with statistics over the whole step may.
    """
    credited = objective.evaluate(batch, state)
    if credited.weight is not None:
        raise QreditError(f"a stage of {objective} returns a weight; its scope must be BATCH")
    return credited


def _live(credited: Credited) -> Tensor:
    """The rows that carry a coefficient; the first where none does."""
    live = credited.learning.nonzero()[:, 0]
    return live if len(live) else torch.tensor([0])
