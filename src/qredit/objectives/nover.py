"""NOVER: the rank of the gold answer's perplexity among the rollouts of a group as the reward."""

from dataclasses import replace

from qredit.core.chain import on_span
from qredit.core.field_names import REFERENCE
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.perplexity_rank import perplexity_rank
from qredit.objectives._method import method
from qredit.penalties.reference import kl_to_reference


@method("reward", "arXiv 2505.16022", "code")
def nover(
    beta: float = 0.1,
    form: float = 1.0,
    rank: float = 1.0,
    efficiency: float = 1.0,
    teacher: str = REFERENCE,
    epsilon_low: float = 0.1,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-4,
) -> Objective:
    """GRPO rewarded by how a rollout's rationale ranks in its group for a fixed model that predicts the gold answer.

        r_i = form · form_i + rank · R_i + efficiency · E_i,   A_i = (r_i - mean_g r) / (std_g r + epsilon_std)

    with R_i, the place by the answer's perplexity after rationale i, and E_i, the share of other rollouts that are both
    longer and worse, as in `perplexity_rank`. A rank looks the same at any likelihood. Every token that was sampled
    learns. The gold answer's are scored and get no gradient. form_i is what the reward function gives: the reward
    `format` here, tags in the text in NOVER's code. Rollouts with form_i = 0 have no rank.

    Args:
        beta: strength of the KL divergence from the teacher, on every sampled token.
        form, rank, efficiency: weights of the parts.
        teacher: who predicts the answer: the model at the start of the run, or another that the run was given.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to the standard deviation (n-1).

    Zero, but for the divergence, in rows without a gold answer and where all rewards so made are equal in a group.

    Source: arXiv 2505.16022, compared with the official code, thinkwee/NOVER at cb1a4ef: `reward_functions.py`,
    `utils.py`, `trainer.py`, `config.py`. Difference: its teacher moves a tenth of the way to the policy at every save,
    here it stays. `scale_rewards=False` in its configuration is not handed to TRL, whose division by the standard
    deviation is kept here. Ties share the better place.
    """
    ranked = perplexity_rank(form, rank, efficiency, teacher)
    advantage = on_span("sampled", ranked | center_by_group() | scale_by_group_std(epsilon_std))
    objective = Objective(advantage, clipped_ratio(epsilon_low, epsilon_high), mean_per_token())
    return replace(objective, penalties=(kl_to_reference(beta, teacher=teacher),)) if beta else objective
