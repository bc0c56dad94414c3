"""Sampled rollouts as the rows of a micro-batch, with what forward passes of their own tell of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor

from qredit.core.chain import kinds
from qredit.rollouts.collate import Rows, Sampled, Tail, collate
from qredit.shared_prefix.install import DIVERGENCE, ERROR
from qredit.trl.attention import INFLUENCE, LOCALITY, horizons_of, token_roles
from qredit.trl.base_probability import BASE, base_probability, without_rationale
from qredit.trl.reference import REFERENCE, Reference
from qredit.trl.step.passes import SAMPLER_ENTROPY, Passes


@dataclass(frozen=True, eq=False)
class Collation:
    """Makes rows for an objective.

    Attributes:
        needs: the objective's.
        pad: the id that fills rows up.
        reference: the model that the run began with, if the objective compares with it.
        close: ids of the closing as it is forced.
    """

    accelerator: Accelerator
    needs: frozenset[str]
    tails: Sequence[Tail]
    pad: int
    passes: Passes
    reference: Reference | None
    close: Sequence[int]

    def rows(self, sampled: Sequence[Sampled], seed: int, vocabulary: Tensor | None) -> Rows:
        """One row for each rollout and tail."""
        rows = collate(sampled, self.tails, self.pad, seed, self.accelerator.device)
        return replace(rows, vocabulary=vocabulary)

    def vocabulary(self, sampled: Sequence[Sampled]) -> Tensor | None:
        """The ids that occur in a generation, on all processes, where the objective asks for prediction errors.

        Gold answers among them: one set for every stage and every tail.
        """
        if ERROR not in self.needs:
            return None
        own = {token for one in sampled for token in (*one.rollout.ids, *one.gold)}
        return torch.tensor(sorted(set().union(*gather_object([own]))), device=self.accelerator.device)

    def with_passes(self, rows: Rows, sampled: Sequence[Sampled] = ()) -> Rows:
        """The rows with what forward passes of their own tell, where the objective needs it.

        Args:
            sampled: the rollouts that the rows are of.
        """
        told: dict[str, Tensor] = {}
        policy = self.passes.policy
        if REFERENCE in self.needs:
            told[REFERENCE] = self._by_reference(rows)
        if DIVERGENCE in self.needs:
            rows = replace(rows, reference_hidden=self._states_of_reference(rows))
        if BASE in self.needs:
            closed = collate(without_rationale(sampled, self.close), ("answer",), self.pad, 0, self.accelerator.device)
            told[BASE] = base_probability(sampled, closed, self._by_reference(closed), len(self.tails))
        run = self.passes.run
        if SAMPLER_ENTROPY in self.needs and run.model.training and run.serves_several_steps:
            told[SAMPLER_ENTROPY] = self.passes.scored_without_gradient(run.model_wrapped, rows).extra[SAMPLER_ENTROPY]
        if {LOCALITY, INFLUENCE} & kinds(self.needs):
            told |= token_roles(policy, rows, horizons_of(self.needs))
        return replace(rows, batch=replace(rows.batch, extra={**rows.batch.extra, **told}))

    def _states_of_reference(self, rows: Rows) -> Float[Tensor, "B T E"]:
        layout, reference = self.passes.run.layout, self.reference
        assert layout is not None
        assert reference is not None
        chunks = self.passes.chunks(rows, torch.arange(len(rows.batch.mask)))
        with self.accelerator.autocast():
            return reference.hidden(self.passes.policy, rows, chunks, layout)

    def _by_reference(self, rows: Rows) -> Float[Tensor, "B T"]:
        """log-probability of each completion token under the model that the run began with."""
        layout = self.passes.run.layout
        assert layout is not None
        assert self.reference is not None
        chunks = self.passes.chunks(rows, torch.arange(len(rows.batch.mask)))
        with self.accelerator.autocast():  # as the policy is scored, or rounding alone would be a divergence
            return self.reference.logp(self.passes.policy, rows, chunks, layout, self.passes.temperature)
