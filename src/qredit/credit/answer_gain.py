"""What each turn did to the likelihood of the reference answer.

`answer_logp_at` (B, T) holds on the tokens of turn k the mean log-probability of a token of the reference answer, if
the answer were given in the place of turn k: after the prompt and all that was said and observed in the turns before.
So it is the belief before turn k, and that of the next turn is the belief after it. Constants, under the policy that
sampled, in nats; -inf is a likelihood of 0, NaN not known.
"""

from dataclasses import dataclass

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Source
from qredit.credit.turn import has_no_turn_after, segment_turns, set_turn_values
from qredit.utils.errors import QreditError

_SLACK = 1e-3  # a log-probability may exceed 0 by rounding, not by more


@dataclass(frozen=True)
class answer_gain(Source):
    """c_{i,t} = p_{i,k+1} - p_{i,k} on turn k, p_{i,k} = exp(answer_logp_at) the belief in the answer before turn k.

    What a turn's search or action, with the reply to it, made the reference answer more likely. The last turn of a
    rollout gave the answer and gains nothing: it is kept out, and so is all of a rollout of one turn. Kept out are also
    turns whose gain is not finite, and rollouts whose reward is NaN.

    Args:
        logarithm: log p in the place of p.
    """

    logarithm: bool = False
    needs = frozenset({"turn", "answer_logp_at", "reward"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        turns = segment_turns(batch, str(self))
        before = turns.at_last(batch.require("answer_logp_at", str(self)).double())
        if bool((before > _SLACK).any()):
            raise QreditError(f"answer_logp_at must be log-probabilities ≤ 0 (nats), got {float(before.max()):.4g}")
        before = before if self.logarithm else before.exp()
        gain = before.roll(-1, 1) - before
        scored = ~batch.require("reward", str(self)).isnan()[:, None]
        known = gain.isfinite() & turns.exists & ~has_no_turn_after(turns) & scored
        return set_turn_values(Coefficient(gain), turns, gain, known)
