"""Leash: a length in the mean, held by a price that moves."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.length import charge_length_above
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("reward", "arXiv 2512.21540", "notes", example="target=8, rate=0.05, most=1.0")
def leash(
    target: int, rate: float, most: float, start: float = 0.0, epsilon_low: float = 0.2, epsilon_high: float = 0.2
) -> Objective:
    """GRPO on the reward less a price on tokens beyond a target, which rises while rollouts are too long in the mean.

        r_i ← r_i - λ · max(0, |o_i|/target - 1),   λ ← clip(λ + rate · (mean |o|/target - 1), 0, most) after each step

    λ is the Lagrange multiplier of "a mean length of at most the target". It is checkpointed.

    Args:
        target: sampled tokens of a rollout in the mean.
        rate: how fast λ moves, in rewards for each step at twice the target.
        most, start: the largest λ, and the first.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Zero where all rewards so made are equal. Source: arXiv 2512.21540, known from its abstract and others' summaries.
    Constraint, ascent and the one-sided charge are theirs; they tell no rate and no bounds, and the loss around it
    (GRPO's advantage, one mean over all tokens) is ours.
    """
    made = reward() | charge_length_above(target, rate, most, start)
    advantage = made | center_by_group() | scale_by_group_std()
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
