"""One mean over all sampled tokens of a group, where the reduction is a mean over rollouts."""

from dataclasses import dataclass

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.credit.token_weight import scale_tokens


@dataclass(frozen=True)
class divide_by_group_tokens(Credit):
    """c_t ← c_t · M / Σ_{j in group} |o_j|, M the group's rollouts and |o_j| the sampled tokens of rollout j.

    Under `sum_per_rollout` the loss is then the mean over prompts of (1/Σ|o_j|) Σ_j Σ_t: every prompt counts alike, and
    every token of a prompt. `mean_per_token` divides by the tokens of the whole step, which weighs prompts by the
    lengths of their rollouts. Tokens that were not sampled keep c.
    """

    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        groups = batch.groups
        every = batch.mask.new_ones(len(batch.mask))
        tokens = groups.total(batch.drawn_once.sum(1).double(), every)
        rollouts = groups.count(every) * batch.rollouts / len(batch.mask)  # a rollout may stand in two rows
        return scale_tokens(coefficient, (rollouts / tokens.clamp(min=1))[:, None], batch.sampled)
