"""The mean probability of the gold answer's tokens, an alternative to the likelihood of the whole answer."""

from dataclasses import dataclass

from qredit.batch import RolloutBatch
from qredit.chain import Coefficient, Source
from qredit.masked import masked, row_mean


@dataclass(frozen=True)
class mean_answer_probability(Source):
    """c_i = (1/|y*|) Σ_t p(y*_t | x, z_i, y*_<t): each token's probability, averaged; in [0, 1].

    The likelihood is the product of the same numbers: it falls with the length of the answer, and one improbable token
    takes it to 0. Rows without a gold answer are left out and get 0. `answer_logp` is named among the needs because it
    is what the gold answer is appended for.
    """

    needs = frozenset({"logp", "answer_logp"})

    def __call__(self, batch: RolloutBatch) -> Coefficient:
        logp = masked(batch.require("logp", str(self)).double(), batch.answer)
        return Coefficient(row_mean(logp.exp(), batch.answer)[:, None], keep=batch.has_answer[:, None])
