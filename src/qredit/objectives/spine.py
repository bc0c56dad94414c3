"""SPINE: test-time training on forks that each row's entropies set off, within an entropy band."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.fork import keep_otsu_forks
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.vote import majority_vote
from qredit.objectives._method import method
from qredit.penalties.otsu_fork import otsu_fork_entropy_band, otsu_fork_kl_to_reference


@method("penalty", "arXiv 2511.17938", "paper", example="kl=0.1, above=0.1, below=0.1")
def spine(
    kl: float,
    above: float,
    below: float,
    bins: int = 100,
    leave_one_out: bool = False,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Objective:
    """GRPO on agreement with the majority of the group's answers, learning at forks alone.

        r_i = 1[answer_i is the majority's],   loss = GRPO on forks + kl · KL on forks + the band of their entropies

    Forks are the sampled tokens at or above Otsu's threshold of their row's entropies: see `keep_otsu_forks` and
    `otsu_fork_entropy_band`. Policy and band are divided by all sampled tokens, the divergence, over the whole
    vocabulary, by the forks. No gold answer is used. `spine_v1` is the first version.

    Args:
        kl, above, below: weights of the divergence from the reference (0 needs none) and of the band's hinges. Not
            stated in what is known of the method: no default.
        bins: of the histogram of a row's entropies.
        leave_one_out: compare with the majority of the other rollouts.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.

    Zero, but for divergence and band, in groups that agree.

    Source: arXiv 2511.17938v2, the paper's text. The official repository, JianghaoWu/SPINE, could not be read.
    Difference: ties, the standard deviation (n-1) and the clip are ours.
    """
    advantage = majority_vote(leave_one_out) | center_by_group() | scale_by_group_std() | keep_otsu_forks(bins)
    held = otsu_fork_entropy_band(above, below, bins)
    penalties = (otsu_fork_kl_to_reference(kl, bins), held) if kl else (held,)
    surrogate = clipped_ratio(epsilon_low, epsilon_high)
    return Objective(on_span("sampled", advantage), surrogate, mean_per_token(), penalties)
