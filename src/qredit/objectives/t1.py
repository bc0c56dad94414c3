"""T1: many hot rollouts, a leave-one-out baseline, and an anchor that follows the policy."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.group import subtract_mean_of_others
from qredit.credit.reward import punish_degenerate, reward
from qredit.credit.teacher_ratio import subtract_centred_log_ratio
from qredit.objectives._method import method
from qredit.penalties.entropy import entropy_bonus


@method("reward", "arXiv 2501.11651", "notes", example="entropy=0.001")
def t1(entropy: float, kl: float = 2e-4, teacher: str = "ema", punishment: float = -1.0) -> Objective:
    """RLOO with a price on degenerate rollouts, on leaving a moving average of the policy, and an entropy bonus.

        r_i = punishment where degenerate, else what was earned
        A_i = r_i - mean_{j≠i} r_j - kl · (D_i - mean D),   D_i = Σ_t log p(o_t) - log p_ema(o_t)
        loss = -(1/N) Σ_i A_i Σ_t log p(o_t) - entropy · mean H

    Zero, but for divergence and bonus, where all rewards of a group are equal. It needs `--field
    'degenerate=degenerate_rollouts(…)'` and `--field 'logp@ema=moving_average(rate=…)'`. The paper draws 64 rollouts of
    a prompt at temperature 1.2: `--m 64 --temperature 1.2`. Log-probabilities are then those at that temperature.

    Args:
        entropy: strength of the bonus, in rewards per nat.
        kl: price of the divergence, per nat.
        teacher: the name of the average.
        punishment: reward of a degenerate rollout.

    Source: arXiv 2501.11651, known from others' notes. Baseline, -1, kl and the sampling are theirs. They tell neither
    the strength of the bonus, nor the rate of the average, nor the equations: those of the divergence and the reduction
    (a sum over tokens, a mean over rollouts) are ours.
    """
    made = reward() | punish_degenerate(punishment) | subtract_mean_of_others()
    anchored = made | subtract_centred_log_ratio(kl, teacher)
    return Objective(on_span("sampled", anchored)) | entropy_bonus(entropy)
