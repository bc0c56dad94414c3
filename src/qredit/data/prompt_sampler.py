"""What chooses the prompts of a run, generation by generation, and what it is told of the groups that they made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qredit.utils.stateful import Stateful


@dataclass(frozen=True)
class GroupStatistics:
    """What the rollouts of one prompt showed.

    Attributes:
        example: the prompt, by its index in the data set.
        reward: mean over the rollouts that were scored; None where none was.
        all_equal: those have one and the same reward, or there are fewer than two.
        answer_logp: mean of log p(y*|x,z) over the rollouts z, in nats, at most 0, and -inf where one of them rules the
            gold answer out; None where the objective reads no likelihood.
        learned: the group was learned from. False where dynamic sampling put another in its place; its likelihood is
            not known then.
    """

    example: int
    reward: float | None
    all_equal: bool
    answer_logp: float | None = None
    learned: bool = True


class PromptSampler(Stateful, Protocol):
    """The order in which a run asks the prompts of its data set: plain, adaptive, a curriculum.

    For each generation an engine calls `next` once, and `observe` once, when all its micro-batches have been scored
    for the first time; in between come calls of `next` for further prompts, where dynamic sampling asks for any. So
    `next` for a generation has observed all generations before it, and lags behind none: prompts are chosen when a
    generation begins, and not by loaders that fetch batches ahead.

    Every process holds a sampler of its own, is given the same calls with the same values, and takes its share of what
    `next` gives. What it gives must therefore be a function of its seed, of the state that a checkpoint holds and of
    what it observed: nothing of it may depend on the process, a clock or the generators of others.
    """

    def next(self, n: int, /) -> Sequence[int]:
        """Indices of the n prompts that come next; one that comes twice makes two groups."""

    def observe(self, groups: Sequence[GroupStatistics], /) -> None:
        """Take in the groups of a generation, over all processes.

        Args:
            groups: those learned from, in the order in which `next` gave their prompts (a group that dynamic sampling
                put in another's place stands in its place); then those that were left out.
        """
