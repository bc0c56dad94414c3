"""GiGPO: groups in groups, of turns that were taken in one state. HGPO: nested ones, by what came before."""

from qredit.core.chain import Source, add, on_span
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.schedule import check_range
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.reward import reward
from qredit.credit.turn import center_by_pool, scale_by_pool_std, sum_turns_to_come, turn_reward
from qredit.objectives._method import method


@method("step", "arXiv 2505.10978", "code")
def gigpo(
    strength: float = 1.0,
    discount: float = 0.95,
    scale: bool = True,
    history: int = 0,
    exponent: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    epsilon_std: float = 1e-6,
    dual_clip: float | None = 3.0,
) -> Objective:
    """GRPO's advantage, and a second one among the turns that rollouts of the group took in the same state.

        A_{i,k} = (R_i - mean R) / F + strength · (G_{i,k} - mean_S G) / F_S,   G_{i,k} = Σ_{j≥k} discount^{j-k} r_{i,j}

    r_{i,j} is the reward of turn j, S all turns of the group that were taken in the state of turn k, F the standard
    deviation (n-1) plus epsilon_std, or 1.

    With a history this is HGPO (arXiv 2602.22817). The second advantage is then Σ_n w_n A_n over n = 0 … history, A_n
    among turns whose n states before were the same, too, and w_n = (n+1)^exponent / Σ_m (m+1)^exponent.

    Args:
        strength: of the advantage among turns.
        discount: γ, per turn.
        scale: divide by standard deviations. The released launchers do so for ALFWorld and search, and not for WebShop.
        history: how many states before are compared, 0 for GiGPO.
        exponent: how much more a longer common history weighs.
        epsilon_low, epsilon_high: half-widths of the trust region of the ratio.
        epsilon_std: added to standard deviations.
        dual_clip: the loss of A < 0 is capped at -dual_clip · A, None for no cap. verl takes 3.

    The first part is zero where all rewards of a group are equal. The second is zero where no other turn was taken in
    that state, or all have one return, and where the environment names no state. A turn without a reward adds 0 to
    returns. It has no return, and no second part, where no later turn has a reward either.

    Source: arXiv 2505.10978, eq. 3 and 5 to 8, compared with official code. Difference: means of rewards are over
    rollouts, as in eq. 3. An earlier release averaged over turns, and so weighed long rollouts more. A rollout alone in
    its group gets 0, there its reward. States are equal or not: there is no threshold of similarity. A price on invalid
    actions belongs to the environment. The divergence from a reference model (0.01 or 0.001 there) is added by
    `| kl_to_reference(…)`. HGPO is known from others' notes, which do not say the exponent. Where n states before are
    shared with nobody, A_n is 0 here. A copy of its code leaves it out of the weights.
    """
    check_range("history", history, 0, 16)
    outcome, returns = reward() | center_by_group(), turn_reward() | sum_turns_to_come(discount)
    pools = [f"state@{n}" if n else "state" for n in range(history + 1)]
    steps: list[Source] = [returns | center_by_pool(pool) for pool in pools]
    if scale:
        outcome = outcome | scale_by_group_std(epsilon_std)
        steps = [step | scale_by_pool_std(pool, epsilon_std) for step, pool in zip(steps, pools, strict=True)]
    weights = [(n + 1) ** exponent for n in range(history + 1)]
    nested = [strength * weight / sum(weights) * step for weight, step in zip(weights, steps, strict=True)]
    surrogate = clipped_ratio(epsilon_low, epsilon_high, dual_clip)
    return Objective(on_span("sampled", add(outcome, *nested)), surrogate, mean_per_token())
