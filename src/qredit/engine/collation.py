"""Sampled rollouts as the rows of a micro-batch, with what forward passes of their own tell of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from torch import Tensor, nn

from qredit.core.chain import field_kinds
from qredit.core.field_names import (
    ANSWER_AT_TURNS,
    HINT,
    HINTED_LOGP,
    LOGP_PREFIX,
    REFERENCE,
    REINFORCED,
    list_state_teachers,
    list_teachers,
)
from qredit.engine.answer_at_turns import score_answer_at_turns, spread_over_turns
from qredit.engine.attention_maps import INFLUENCE, LOCALITY, compute_token_roles, parse_horizons
from qredit.engine.base_probability import BASE, base_probability, drop_rationales
from qredit.engine.collective import Collective
from qredit.engine.learner import Learners
from qredit.engine.proposal import score_behind_hint, score_behind_plain_prompt
from qredit.engine.scorer import SAMPLER_ENTROPY, Scorer
from qredit.engine.teacher import Forward
from qredit.engine.untold import fill_untold_densities, is_untold
from qredit.rollouts.collate import Rows, Tail, collate
from qredit.rollouts.trajectory import Trajectory
from qredit.shared_prefix.patch_forward import ERROR


@dataclass(frozen=True, eq=False)
class Collator:
    """Makes rows for an objective.

    Attributes:
        needs: the objective's and the learners'.
        pad: the id that fills rows up.
        close: ids of the closing as it is forced.
        serves_several_steps: whether rollouts are still in use when the weights have moved.
        learners: fill fields of theirs, after all others.
        exact_sampler: the sampler's log-probabilities are those that a forward pass would tell, within rounding.
        sampler_differs: rollouts count as draws of another policy than the one that learns, from its first step on.
    """

    collective: Collective
    needs: frozenset[str]
    tails: Sequence[Tail]
    pad: int
    scorer: Scorer
    close: Sequence[int]
    serves_several_steps: bool
    learners: Learners = field(default_factory=Learners)
    exact_sampler: bool = False
    sampler_differs: bool = False

    def rows(self, trajectories: Sequence[Trajectory], seed: int, vocabulary: Tensor | None) -> Rows:
        """One row for each rollout and tail.

        Args:
            trajectories: sampled rollouts, in order.
            seed: all draws are a function of it.
            vocabulary: (V,) ids that occur in the generation, where prediction errors are asked for.
        """
        rows = collate(trajectories, self.tails, self.pad, seed, self.scorer.device)
        return replace(rows, vocabulary=vocabulary)

    def vocabulary(self, trajectories: Sequence[Trajectory]) -> Tensor | None:
        """The ids that occur in a generation, on all processes, where the objective asks for prediction errors.

        Gold answers among them: one set for every stage and every tail.
        """
        if ERROR not in self.needs:
            return None
        own = {token for one in trajectories for token in chain(one.ids, *one.golds)}
        return torch.tensor(sorted(set().union(*self.collective.gather([own]))), device=self.scorer.device)

    def add_forward_fields(self, model: nn.Module, rows: Rows, trajectories: Sequence[Trajectory] = ()) -> Rows:
        """The rows with what forward passes of their own tell, where the objective needs it.

        Args:
            model: the wrapped one.
            rows: prompts and completions, padded, (B, P) and (B, T).
            trajectories: those that the rows are of.
        """
        told: dict[str, Tensor] = {}
        teachers, forward = self.scorer.teachers, self.scorer.forward(model)
        for name in list_teachers(self.needs):
            if name in teachers:
                told[f"{LOGP_PREFIX}{name}"] = teachers[name].logp(rows, forward)
        if HINTED_LOGP in self.needs and HINT not in teachers:
            told[HINTED_LOGP] = score_behind_hint(trajectories, self.tails, rows, forward, self.pad, self.exact_sampler)
        if rows.batch.proposal is not None and bool(rows.batch.proposal.any()):
            rows = self._with_plain_density(rows, forward)
        others_weights = self.serves_several_steps or self.sampler_differs
        if REINFORCED in self.needs and others_weights and self._any_untold(trajectories):
            rows = fill_untold_densities(trajectories, self.tails, rows, forward)
        hidden = {name: teachers[name].hidden(rows, forward) for name in list_state_teachers(self.needs)}
        rows = replace(rows, teacher_hidden=hidden)
        if BASE in self.needs:
            closed = collate(drop_rationales(trajectories, self.close), ("answer",), self.pad, 0, self.scorer.device)
            bare = teachers[REFERENCE].logp(closed, forward)
            told[BASE] = base_probability(trajectories, closed, bare, self.tails)
        if ANSWER_AT_TURNS & (self.needs - rows.batch.extra.keys()):
            at = score_answer_at_turns(trajectories, self.close, self.pad, forward, self.scorer.device)
            told |= spread_over_turns(at, trajectories, self.tails, rows)
        if SAMPLER_ENTROPY in self.needs and self.scorer.policy().training and self.serves_several_steps:
            told[SAMPLER_ENTROPY] = self.scorer.score_batch_no_grad(model, rows).extra[SAMPLER_ENTROPY]
        if {LOCALITY, INFLUENCE} & field_kinds(self.needs):
            told |= compute_token_roles(self.scorer.policy(), rows, parse_horizons(self.needs))
        rows = replace(rows, batch=replace(rows.batch, extra={**rows.batch.extra, **told}))
        return self.learners.filled(rows, forward)

    def _any_untold(self, trajectories: Sequence[Trajectory]) -> bool:
        """Whether a sampler left out what it knows of its draws, on any process: all make the pass or none."""
        return any(self.collective.gather([any(map(is_untold, trajectories))]))

    def _with_plain_density(self, rows: Rows, forward: Forward) -> Rows:
        """Rows drawn behind the hint with the density that they have behind the plain prompt.

        Where the weights do not move before the rows are learned from, that is the density of the step's own pass.
        """
        if self.serves_several_steps or self.sampler_differs:
            return score_behind_plain_prompt(rows, forward)
        return replace(rows, batch=replace(rows.batch, sampler_logp=None))
