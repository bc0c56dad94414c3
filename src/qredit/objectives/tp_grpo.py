"""TP-GRPO: GRPO that does not credit thoughts the answer was not built on."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.credit.wrong_step import settle_unused_steps
from qredit.objectives._method import method


@method("step", "arXiv 2507.23317", "notes", example="alpha=0.5")
def tp_grpo(alpha: float, epsilon_low: float = 0.2, epsilon_high: float = 0.2, epsilon_std: float = 1e-4) -> Objective:
    """GRPO's advantage A_i, except on the tokens of `unused_step`:

        right rollout, step taken back later: A_i - alpha · p̂        wrong rollout, step not adopted: 0

    `unused_step` is made by `--field 'unused_step=judge_unused_steps(url, model)'`. p̂ is the share of right rollouts
    of the group. A wrong rollout is blamed only for the steps its answer adopted. Zero in a group without a right
    rollout. Where all are right, unused steps get -alpha and the rest 0.

    Args:
        alpha: weight of the process reward. The source's value is still open, so it has no default.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).

    Source: arXiv 2507.23317 ("Smarter Not Harder"), known from two sets of others' notes that agree. Difference: the
    net numbers per token instead of rewards per thought that are summed backwards. The pool of older rollouts is a part
    of its own, `--replay 'pool(…)'`.
    """
    advantage = reward() | center_by_group() | scale_by_group_std(epsilon_std) | settle_unused_steps(alpha)
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
