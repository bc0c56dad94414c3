"""RMT's reinforcement learning on raw text: the next token as the answer, within a budget of tokens that shrinks."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.schedule import Schedule, exponential
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.length import mix_in_length
from qredit.credit.reinforced import reinforce_drawn
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("reward", "arXiv 2509.24375", "notes", example="weight=0.2, peak=1.0")
def rmt(
    weight: float,
    peak: float,
    budget: float | Schedule = exponential(800.0, 160.0),
    next_token: float = 0.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Objective:
    """GRPO on whether the next token of a text was said, mixed with a reward for the length that a budget asks for.

        r_i ← (1 - weight) · r_i + weight · peak · max(0, 1 - | |o_i|/B_t - 1 |),   B_t = max(1, ⌊800 · 0.2^{t/S}⌋)

    Its questions are made by `qredit text-data`, and asked by `--curriculum shift_tiers(…)`.

    Args:
        weight: of the length, 0 … 1.
        peak: what a rollout is paid whose length is the budget.
        budget: B, sampled tokens, by the share t/S of the run.
        next_token: coefficient of the text's own tokens, which `--drawing 'read_on()'` puts in as rows; 0.1 in the
            paper. 0 is without them, and needs no such rule.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Zero where all rewards so made are equal. Source: arXiv 2509.24375, by notes of others. They tell the triangle, the
    budget and GRPO; they do not tell weight and peak, so these have no default, and the reduction is ours. Differences:
    the budget is not written in the prompt, whose ids are made before the run; and the likelihood of the text's other
    tokens is that of those which follow in the row, under the reduction of all tokens of the step.
    """
    made = reward() | mix_in_length(weight, peak, budget)
    advantage = made | center_by_group() | scale_by_group_std()
    if next_token:
        advantage = advantage | reinforce_drawn(next_token)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
