"""The loss of 1-shot RLVR, and training on entropy alone."""

from dataclasses import replace

from qredit.core.objective import Objective
from qredit.objectives._method import method
from qredit.objectives.dapo import dapo
from qredit.penalties.entropy import entropy_bonus
from qredit.penalties.reference import kl_to_reference


@method("penalty", "arXiv 2504.20571", "code")
def one_shot_entropy(
    strength: float = 0.001,
    kl: float = 0.001,
    policy: float = 1.0,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> Objective:
    """GRPO's advantage with a token mean, an entropy bonus and a divergence from a reference model.

        loss = policy · GRPO - strength · mean H + kl · KL

    Args:
        strength: of the bonus.
        kl: of the divergence. 0 needs no reference model.
        policy: 0, with kl = 0, is the run of the paper that raises entropy and nothing else.
        epsilon_low, epsilon_high: half-widths of the ratio's trust region.

    Zero, but for bonus and divergence, where all rewards of a group are equal.

    Source: arXiv 2504.20571, official code, whose H is that of the logits at the sampling temperature.
    """
    base = dapo(epsilon_low, epsilon_high, dual_clip=None)
    open_ended = replace(base, source=policy * base.source) | entropy_bonus(strength)
    return open_ended | kl_to_reference(kl) if kl else open_ended
