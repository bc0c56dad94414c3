"""`macro`: runs of tokens that were less and less surprising."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, pairwise
from typing import ClassVar

from qredit.fields._macros import number_macros
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory


@dataclass(frozen=True)
class macros_by_perplexity(RolloutMaker):
    """`macro` (B, T): a macro action begins where a token's perplexity is above that of the one before it.

        ppl_t = exp(-log p(y_t | y_<t)),   a new macro at t where ppl_t > ppl_{t-1}

    p is that of the policy that sampled, at the sampling temperature, and t runs over sampled tokens. The last of them
    is a macro of its own, and tokens that were not sampled are in none (-1).

    Source: arXiv 2410.02743, "perplexity based termination", known from others' notes. Difference: p is the sampler's,
    which costs no pass of a model.
    """

    fills: ClassVar[tuple[str, ...]] = ("macro",)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        return {"macro": [self._number(one) for one in trajectories]}

    def _number(self, trajectory: Trajectory) -> list[int]:
        drawn = compress(trajectory.logp, trajectory.sampled)
        return number_macros([False, *(after < before for before, after in pairwise(drawn))], trajectory.sampled)
