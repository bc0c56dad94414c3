"""T-REG: a token-level regulariser from the model's own revisions."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.contrast import contrastive_reward
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.objectives._method import method


@method("token", "arXiv 2412.02685", "notes", example="strength=0.1")
def t_reg(strength: float, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """GRPO's advantage plus a token reward that a reference model gives under two contrastive prompts.

        A_t = A_i + strength · r̂_t,   r̂_t = sigmoid(log p_better(y_t) - log p_worse(y_t)) - ½

    The two prompts are `--field 'logp@better=behind_prompt("{prompt} …")'` and the same with `logp@worse`. Zero on
    tokens that were not sampled. Where all rewards of a group are equal, r̂_t alone remains.

    Args:
        strength: of the token reward. The source's own factors are 0.1 to 0.5 times the β of its preference loss.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2412.02685, from others' notes. Difference: there the term -Σ r̂_t log p stands beside a preference
    loss over pairs, weighted by the pair. Here the same coefficient stands beside an advantage, under its clip.
    """
    advantage = reward() | center_by_group() | scale_by_group_std()
    credit = on_span("sampled", advantage + strength * contrastive_reward())
    return Objective(credit, clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
