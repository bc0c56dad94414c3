"""CAPO: the outcome reward less a charge on steps that a judge calls wrong."""

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_rollout
from qredit.core.surrogate import clipped_ratio
from qredit.credit.per_token import standardize_tokens_by_group
from qredit.credit.reward import reward
from qredit.credit.wrong_step import charge_wrong_steps
from qredit.objectives._method import method


@method("step", "arXiv 2508.02298", "notes")
def capo(whole: float = 2.0, process: float = 1.0, epsilon_low: float = 0.2, epsilon_high: float = 0.2) -> Objective:
    """A language model marks the wrong steps of each rollout, and their tokens are charged for.

        R_{i,t} = whole · r_i - process · 1[t ∈ E_i],   A_{i,t} = (R_{i,t} - mean) / std

    E_i are the tokens of `wrong_step`, by `--field 'wrong_step=judge_wrong_steps(url, model)'`. Mean and std (n - 1)
    run over all tokens of all rollouts of the group. A group of equal rewards still learns from its wrong steps. Zero
    where all R of a group are equal.

    Args:
        whole, process: weights of the outcome and of a wrong step.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.

    Source: arXiv 2508.02298, known from others' notes. That the pooled std divides is an assumption of ours. How
    several critiques are voted on is `qredit.rewards.judge.vote`. Difference: the mean over each rollout's tokens as
    the reduction, which the notes do not name.
    """
    advantage = whole * reward() | charge_wrong_steps(process) | standardize_tokens_by_group()
    return Objective(on_span("sampled", advantage), clipped_ratio(epsilon_low, epsilon_high), mean_per_rollout())
