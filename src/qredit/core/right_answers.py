"""The likelihood of any of several right answers after one rationale, and what each of them has to do with it.

A question may have right answers beside the gold one: its aliases y_1, y_2, … As sequences of tokens, their ends
included, they are different and none is the beginning of another. So at most one of them is written, and

    w = Σ_j p(y_j|x,z),   ∇log w = Σ_j s_j ∇log p(y_j|x,z),   s_j = p(y_j|x,z) / w.

A rationale is one row with one w, however many answers it has: means over a group, and M itself, count it once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.stats.masked import row_mean


@dataclass(frozen=True, eq=False)
class RightAnswers:
    """A sum over the tokens of each right answer.

    Attributes:
        total: (B, A) float64.
        tokens: (B, A) how many tokens each has; 0 where a row has fewer than A answers.
    """

    total: Float[Tensor, "B A"]
    tokens: Int[Tensor, "B A"]

    @property
    def there(self) -> Bool[Tensor, "B A"]:
        """The answers that there are."""
        return self.tokens > 0


def sum_per_answer(value: Float[Tensor, "B T"], answer: Bool[Tensor, "B T"], alias: Int[Tensor, "B T"]) -> RightAnswers:
    """Σ over the tokens of each right answer.

    Args:
        value: (B, T), read on answer tokens alone.
        answer: (B, T) as in `qredit.core.batch.RolloutBatch`.
        alias: (B, T) as there.
    """
    shape = (len(alias), int(alias.max()) + 1 if alias.numel() else 1)
    total = torch.zeros(shape, dtype=torch.float64, device=alias.device)
    total = total.scatter_add(1, alias, torch.where(answer, value.double(), 0.0))
    return RightAnswers(total, torch.zeros_like(total, dtype=torch.long).scatter_add(1, alias, answer.long()))


def join_answers(
    logp: Float[Tensor, "B T"], answer: Bool[Tensor, "B T"], alias: Int[Tensor, "B T"] | None
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B T"] | None]:
    """log w of each row, and the share s_j of the answer that each of its tokens belongs to.

        log w = log Σ_j exp Σ_{t in y_j} log p_t

    Where every answer has likelihood 0, they share equally.

    Args:
        logp: (B, T) log-probability of each token, nats; summed in float64.
        answer: (B, T) as in `qredit.core.batch.RolloutBatch`.
        alias: (B, T) as there; None where no row has an alias.

    Returns:
        (B,) log w in nats, float64, 0 in rows without an answer; (B, T) shares in float64, 1 on tokens outside
        `answer`, or None where no row has an alias.
    """
    # float64: a sum over a long answer must not lose what tells two rationales apart
    if alias is None:
        return torch.where(answer, logp.double(), 0.0).sum(1), None
    each = sum_per_answer(logp, answer, alias)
    log_p = torch.where(each.there, each.total, -torch.inf)
    log_w = log_p.logsumexp(1)
    equal = each.there.double() / each.there.sum(1, keepdim=True).clamp(min=1)
    share = torch.where(log_w[:, None] == -torch.inf, equal, log_p.softmax(1))
    has_answer = each.there.any(1)
    return torch.where(has_answer, log_w, 0.0), torch.where(answer, share.gather(1, alias), 1.0)


def mean_of_best(
    value: Float[Tensor, "B T"], answer: Bool[Tensor, "B T"], alias: Int[Tensor, "B T"] | None
) -> Float[Tensor, " B"]:
    """The mean over the tokens of a right answer, the largest where there are several; 0 in rows without one.

    Args:
        value: (B, T), read on answer tokens alone.
        answer: (B, T) as in `qredit.core.batch.RolloutBatch`.
        alias: (B, T) as there; None where no row has an alias.
    """
    if alias is None:
        return row_mean(value, answer)
    each = sum_per_answer(value, answer, alias)
    mean = torch.where(each.there, each.total / each.tokens.clamp(min=1), -torch.inf).amax(1)
    return torch.where(each.there.any(1), mean, 0.0)
