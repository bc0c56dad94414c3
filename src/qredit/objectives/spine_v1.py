"""SPINE as first published: forks are a fixed share of each row, the band lies between quantiles."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.fork import keep_forks
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.vote import majority_vote
from qredit.objectives._method import method
from qredit.penalties.fork import fork_entropy_band, fork_kl_to_reference


@method("penalty", "arXiv 2511.17938v1", "notes", example="kl=0.1, above=0.1, below=0.1")
def spine_v1(
    kl: float,
    above: float,
    below: float,
    share: float = 0.2,
    leave_one_out: bool = False,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Objective:
    """GRPO on agreement with the majority of the group's answers, learning at a fixed share of tokens.

        r_i = 1[answer_i is the majority's],   loss = GRPO on forks + kl · KL on forks + the band of `fork_entropy_band`

    Forks are each row's sampled tokens of highest entropy. No gold answer is used.

    Args:
        kl, above, below: weights of the divergence from the reference (0 needs none) and of the band's hinges. Not
            stated in what is known of the method: no default.
        share: of a row's tokens that are forks.
        leave_one_out: compare with the majority of the other rollouts.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.

    Zero, but for divergence and band, in groups that agree.

    Source: arXiv 2511.17938v1, from others' notes. `spine` is its second version. No official code could be read.
    Difference: reduction, rounding, ties and estimator of the divergence are ours.
    """
    advantage = majority_vote(leave_one_out) | center_by_group() | scale_by_group_std() | keep_forks(share)
    band = fork_entropy_band(above, below, share)
    penalties = (fork_kl_to_reference(kl, share), band) if kl else (band,)
    surrogate = clipped_ratio(epsilon_low, epsilon_high)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_rollout(), penalties)
