"""What each turn did to the likelihood of the answer that the rollout came to: its support, without a label.

`support@before` and `support@after` (B, T) hold on the tokens of turn k the log-likelihood (nats, a token's mean) that
the rollout's own final answer, or answers that mean the same, would have if it were given in the place of turn k, and
behind it. Constants; -inf is a likelihood of 0, NaN not known. `cluster` numbers the final answers of a group by their
meaning, -1 where there is none.
"""

import math
from dataclasses import dataclass, replace

import torch

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope, Source
from qredit.core.schedule import check_range
from qredit.credit.turn import has_no_turn_after, segment_turns, set_turn_values
from qredit.utils.errors import QreditError

_SLACK = 1e-3  # a log-probability may exceed 0 by rounding, not by more


@dataclass(frozen=True)
class support_gain(Source):
    """c_k = log(s_after + epsilon) - log(s_before + epsilon) on turn k, plus `terminal` on the last turn.

    s is the likelihood of the rollout's own answer, exp of the fields `support@before` and `support@after`. A rollout
    of one turn has `terminal` alone, and a turn of which one likelihood is not known gains 0. Of two rows that share a
    rationale that of the gold answer is kept out.

    Args:
        terminal: added on the last turn.
        epsilon: added to likelihoods.
    """

    terminal: float = 0.5
    epsilon: float = 1e-8
    needs = frozenset({"turn", "support@before", "support@after"})

    def __post_init__(self) -> None:
        check_range("terminal", self.terminal, 0.0, math.inf)
        check_range("epsilon", self.epsilon, 1e-30, 1.0)

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        turns = segment_turns(batch, str(self))
        last = has_no_turn_after(turns)
        logs = []
        for name in ("support@before", "support@after"):
            told = turns.at_last(batch.require(name, str(self)).double())
            if bool((told > _SLACK).any()):
                raise QreditError(
                    f"{name} must be log-likelihoods ≤ 0 (nats), got {float(told.nan_to_num().max()):.4g}"
                )
            logs.append((told.exp() + self.epsilon).log())
        gain = (logs[1] - logs[0]).nan_to_num(0.0)
        gain = torch.where(last[:, :1], 0.0, gain)  # a rollout of one turn
        keep = turns.exists & batch.drawn_rows[:, None]
        return set_turn_values(Coefficient(gain), turns, gain + self.terminal * last, keep)


@dataclass(frozen=True)
class scale_by_answer_share(Credit):
    """c ← f · c, f the share of the group's answered rollouts whose answer means the same; 0 without an answer.

    Rows of a gold answer are not counted, nor are rollouts that were not scored: an episode that an error ended says
    nothing of what the group would answer.
    """

    needs = frozenset({"cluster", "reward"})
    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        cluster, groups = batch.require("cluster", str(self)).long(), batch.groups
        scored = ~batch.require("reward", str(self)).isnan()
        answered = ~batch.has_answer & scored & (cluster >= 0)
        theirs, present = groups.dense(cluster, -1), groups.dense(answered, False)
        alike = (theirs[:, :, None] == theirs[:, None, :]) & present[:, :, None] & present[:, None, :]
        share = groups.rows(alike.double().sum(2)) / groups.count(answered).clamp(min=1)
        return replace(coefficient, value=share[:, None] * coefficient.value)
