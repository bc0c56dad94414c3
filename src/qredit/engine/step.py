"""One micro-batch of an optimiser step: its coefficients, its loss, and what stateful stages keep of it.

`Step.take` is the way in. Coefficients are known before the loss where a stage looks at more than these rows
(`engine/step_credit.py`), or where they were fixed when the rollouts were made (`GenerationMaker.make_microbatch`).
Else `MicrobatchLoss.batch_and_loss` evaluates the objective: on the scores of the forward pass that is then
differentiated, if the rows fit one, and on scores without gradient before it where they do not.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qredit.core.batch import RolloutBatch
from qredit.core.chain import FORWARD_FIELDS, Scope, State, field_kinds
from qredit.core.objective import Credited, Objective, sum_terms
from qredit.engine.backward import Backward
from qredit.engine.collective import Collective
from qredit.engine.generation import Generation, Microbatch
from qredit.engine.learner import Learners
from qredit.engine.passes import fill_empty_pass
from qredit.engine.scorer import Scorer, Scores, mask_unscored_entropy, write_scores
from qredit.engine.stage_state import StageState
from qredit.engine.step_credit import StepCredit
from qredit.rollouts.collate import Rows
from qredit.rollouts.trajectory import Trajectory
from qredit.shared_prefix.layout import PackedContinuations
from qredit.shared_prefix.packing import pack_continuations, pack_prompts
from qredit.shared_prefix.patch_forward import score_selected
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class MicrobatchPosition:
    """Where a micro-batch is in its generation.

    Attributes:
        use: how many micro-batches of the generation were learned from before it, over all its repeats.
        generations: how many generations its optimiser step spans, at least 1.
        complete: it is the last of its optimiser step.
        ends_generation: it is the last of its generation.
        off_policy: the weights have moved since the generation was sampled.
    """

    use: int
    generations: float = 1.0
    complete: bool = True
    ends_generation: bool = True
    off_policy: bool = False


@dataclass(frozen=True, eq=False)
class ScoredMicrobatch:
    """What a micro-batch was learned from.

    Attributes:
        objective: the plain objective of that moment.
        batch: rows.batch with what the forward passes told.
        credited: the coefficients, where they were known before the loss.
        state: that of stateful stages, before the step.
        logged: what learners say of their step, at the last micro-batch of an optimiser step.
        first: the rollouts of the first group; empty after a resume in the middle of a generation.
    """

    objective: Objective
    rows: Rows
    batch: RolloutBatch
    credited: Credited | None = None
    state: Mapping[str, State] = field(default_factory=dict)
    first: Sequence[Trajectory] = ()
    logged: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Step:
    """Learns from micro-batches, in the order of their generation.

    Where the coefficients are not known before, they are computed inside the loss, from the forward pass that is then
    differentiated: a pass of their own would cost as much again, and wrappers such as DDP allow one forward for each
    backward pass.
    """

    scorer: Scorer
    stages: StageState
    step_credit: StepCredit
    collective: Collective
    backward: Backward
    learners: Learners = field(default_factory=Learners)

    def take(
        self, model: nn.Module, objective: Objective, generation: Generation, place: MicrobatchPosition
    ) -> tuple[Tensor, ScoredMicrobatch]:
        """The loss of a micro-batch, for the caller to differentiate; moves stages and learners where a step ends.

        Args:
            model: the wrapped one.
            objective: the plain one of this moment.
            generation: the rollouts in use.
            place: which of its micro-batches, and what ends with it.

        Returns:
            A scalar, whose gradient is added over the micro-batches of a step and averaged over processes; and what it
            was learned from.
        """
        micro = generation.microbatches[place.use % len(generation.microbatches)]
        known, denominators = self._coefficients_known_before(model, objective, generation, place, micro)
        # Stages see the state that held before this step; it moves only when the whole step has been seen.
        state = self.stages.state
        batch, loss = MicrobatchLoss(
            self.scorer, model, objective, micro.rows, denominators, state, self.backward, place.off_policy
        ).batch_and_loss(known)
        self.stages.update(objective, batch, self.collective, place.complete, place.ends_generation)
        self.learners.observe(micro.rows, batch)
        # After the loss: the fields of a generation come from learners as they were before their first step on it.
        logged = self.learners.learn(self.scorer.forward(model), self.collective) if place.complete else {}
        return loss, ScoredMicrobatch(objective, micro.rows, batch, known, state, micro.first, logged)

    def _coefficients_known_before(
        self,
        model: nn.Module,
        objective: Objective,
        generation: Generation,
        place: MicrobatchPosition,
        micro: Microbatch,
    ) -> tuple[Credited | None, Mapping[str, float]]:
        """The coefficients of a micro-batch, where they are known before its loss, and what the loss divides by.

        The denominators are those of the current optimiser step, which may span several generations of equal size.

        Returns:
            None in place of coefficients where `MicrobatchLoss` is to evaluate the objective itself.
        """
        known, denominators = micro.credited, None
        if objective.scope == Scope.BATCH:

            def scored(rows: Rows) -> RolloutBatch:
                return self.scorer.score_batch_no_grad(model, rows, place.off_policy)

            position = place.use % len(generation.microbatches)
            known, denominators = self.step_credit.at(position, generation, objective, scored)
        if denominators is None:
            own = generation.denominators[place.use]
            denominators = {name: place.generations * n for name, n in own.items()}
        return known, denominators


@dataclass(frozen=True, eq=False)
class MicrobatchLoss:
    """The loss of some rows under an objective.

    Attributes:
        model: the wrapped one.
        denominators: what each term of the objective is divided by: those of the whole optimiser step, per process.
        state: that of stateful stages.
        backward: of the parts that are differentiated before the last.
        off_policy: the weights have moved since the rows were sampled.
    """

    scorer: Scorer
    model: nn.Module
    objective: Objective
    rows: Rows
    denominators: Mapping[str, float]
    state: Mapping[str, State]
    backward: Backward
    off_policy: bool = False

    def batch_and_loss(self, known: Credited | None) -> tuple[RolloutBatch, Tensor]:
        """The batch with the scores of its forward passes, and the loss.

        There are three ways, all with the same gradient:

        1. Coefficients are not known and the rows fit one forward pass: all rows are differentiated, and the
           coefficients are evaluated on the scores of that very pass.
        2. The same, under an objective that draws rows (PAFT): prompts run once, all rows are scored on them without
           gradient, and only the rows that were drawn are differentiated (`_of_chosen_rows`).
        3. Coefficients are known, or the rows take several passes: rows whose coefficients are all 0 are scored
           without gradient and left out, the others are differentiated chunk by chunk (`_of_live_rows`).

        Args:
            known: the coefficients, where they were evaluated before; None evaluates them here.
        """
        scorer, rows = self.scorer, self.rows
        whole = torch.arange(len(rows.batch.mask))
        if known is None and len(scorer.split_rows(rows, whole)) == 1:
            if not self.objective.draws:
                # To learn first which rows carry a coefficient would cost a second forward pass over all of them.
                told = scorer.score(self.model, rows)
                batch = self._scored(rows.batch, told)
                return batch, self._loss_from_scores(told, batch, self._evaluate(batch))
            alone = not rows.teacher_hidden  # those are of all rows, in their order
            if alone and scorer.can_cache_prompts() and scorer.fits_with_kept_prompts(rows):
                return self._of_chosen_rows()
        scores: Scores = {}
        if known is None:
            scorer.fill_scores_no_grad(self.model, rows, whole, scores, only=self._needed_tokens())
            known = self._evaluate(self._scored(rows.batch, scores))
        else:
            # The log needs the entropy of every row, so rows that carry no coefficient are scored, too.
            scorer.fill_scores_no_grad(self.model, rows, (~known.learning).nonzero()[:, 0], scores)
        loss = self._of_live_rows(known, scores)
        return self._scored(rows.batch, scores), loss

    def _of_live_rows(self, credited: Credited, scores: Scores) -> Tensor:
        """Forward and backward over the rows that carry a coefficient, chunk by chunk; fills in their `scores`.

        The last chunk's loss is left for the caller to differentiate; what the others contribute is added to it as a
        constant, so that the logged loss is the whole one. Where no row carries any, one of them takes part all the
        same: gradients are averaged over processes. So does one in a pass that only other processes have rows for.
        """
        chunks = self.scorer.split_rows(self.rows, _live(credited))
        done = torch.zeros((), device=self.scorer.device)
        for chunk in chunks[:-1]:
            # The forward pass, too: there DDP decides whether the backward pass exchanges gradients. Processes differ
            # in how many chunks they have, so an exchange for each of them would never end.
            with self.backward.no_sync(self.model):
                loss = self._loss_of_chunk(chunk, credited, scores)
                if self.scorer.policy().training:  # a wrapper keeps the mode it was made in
                    self.backward.run(loss)
            done = done + loss.detach()
        return done + self._loss_of_chunk(chunks[-1], credited, scores)

    def _loss_of_chunk(self, chunk: Tensor, credited: Credited, scores: Scores) -> Tensor:
        """What some rows contribute to the loss; 0 with a graph where there are none, for the pass that others make."""
        part = self.rows.select(fill_empty_pass(chunk))
        told = self.scorer.score(self.model, part)
        if not len(chunk):
            return 0.0 * told["logp"].sum()
        write_scores(scores, self.rows, chunk, told)
        return self._loss_from_scores(told, self._scored(part.batch, told), credited.select(chunk))

    def _of_chosen_rows(self) -> tuple[RolloutBatch, Tensor]:
        """The second way of `batch_and_loss`: prompts run once, with gradient, for both passes over completions.

        DistributedDataParallel allows one forward for each backward pass. So `choose` is handed into the model's
        forward, and the objective is evaluated there, between the pass that scores all rows and the one that is
        differentiated.
        """
        start = time.perf_counter()
        scorer, rows, only = self.scorer, self.rows, self._needed_tokens()
        prompts = pack_prompts(rows)
        layout = pack_continuations(prompts, rows)
        scores: Scores = {}
        chosen: list[tuple[Tensor, Credited]] = []

        def choose(told: Scores) -> PackedContinuations:
            write_scores(scores, rows, torch.arange(len(rows.batch.mask)), mask_unscored_entropy(told, only))
            scorer.seconds += time.perf_counter() - start
            credited = self._evaluate(self._scored(rows.batch, scores))
            live = _live(credited)
            chosen.append((live, credited.select(live)))
            return pack_continuations(prompts, rows.select(live))

        layout = layout if only is None else layout.only(only)
        told = score_selected(self.model, layout, choose, scorer.temperature, scorer.make_request(rows))
        live, credited = chosen[0]
        write_scores(scores, rows, live, told)
        own = self._scored(rows.select(live).batch, told)
        return self._scored(rows.batch, scores), self._loss_from_scores(told, own, credited)

    def _scored(self, batch: RolloutBatch, scores: Scores) -> RolloutBatch:
        return self.scorer.attach_scores(batch, scores, self.off_policy)

    def _loss_from_scores(self, told: Scores, batch: RolloutBatch, credited: Credited) -> Tensor:
        return sum_terms(self.objective.numerators(told["logp"], batch, credited), self.denominators)

    def _evaluate(self, batch: RolloutBatch) -> Credited:
        return evaluate_objective(self.objective, batch, self.state)

    def _needed_tokens(self) -> Tensor | None:
        """The tokens whose scores the coefficients depend on, where that is the gold answer's alone; None is all."""
        needs = self.objective.needs
        if self.off_policy:
            needs = needs | self.objective.needs_off_policy
        return None if field_kinds(needs) & (FORWARD_FIELDS - {"answer_logp"}) else self.rows.batch.answer


def evaluate_objective(objective: Objective, batch: RolloutBatch, state: Mapping[str, State]) -> Credited:
    """The objective on rows whose denominators are known already.

    Args:
        objective: what is evaluated; no hyper-parameter of it is a schedule any more.
        batch: whole groups, with the fields in `needs`.
        state: explicit state of stateful stages, by their place.

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
