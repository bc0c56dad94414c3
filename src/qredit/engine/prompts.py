"""The prompts of each generation on one process of several, and what their sampler is told of the groups they made."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from typing import Any

from qredit.core.batch import RolloutBatch
from qredit.data.prompt_sampler import GroupStatistics, PromptSampler
from qredit.data.shuffled import SHUFFLED
from qredit.data.statistics import summarize_groups
from qredit.engine.collective import Collective
from qredit.engine.run_state import PROMPTS
from qredit.utils.errors import QreditError


class Prompts:
    """Asks a sampler for the prompts of each generation, when it begins; every process calls all methods alike.

    A Stateful: a checkpoint holds the sampler's state, the prompts in use and what is still to be told of them. It is
    the same on every process.

    Args:
        dataset: rows by index.
        per_generation: prompts of a generation, over all processes: a multiple of their number.

    Attributes:
        asked: the prompts of this generation, by index, over all processes, as the sampler gave them.
        used: the same after dynamic sampling has put others in the place of some.
    """

    name = PROMPTS

    def __init__(self, dataset: Any, sampler: PromptSampler, collective: Collective, per_generation: int) -> None:
        self.dataset, self.sampler, self.collective = dataset, sampler, collective
        self.per_generation = per_generation
        self._as_given = deepcopy(sampler.state_dict())
        self.asked: list[int] = []
        self.used: list[int] = []
        self._own: list[tuple[int, GroupStatistics]] = []  # this process's, since the last gathering
        self._seen: list[tuple[int, GroupStatistics]] = []  # all processes', still to be told

    def begin(self) -> None:
        """Begin again, with the sampler as it was given."""
        self.sampler.load_state_dict(deepcopy(self._as_given))
        self.asked, self.used, self._own, self._seen = [], [], [], []

    def next_generation(self) -> None:
        """Choose the prompts of a new generation."""
        self.asked = self.used = self.drawn(self.sampler, self.per_generation)
        self._own, self._seen = [], []

    def drawn(self, sampler: PromptSampler, n: int) -> list[int]:
        """The next n prompts of a sampler, for all processes.

        Raises:
            QreditError: a wrong number of them, an index that no row has, or processes that were given different ones.
        """
        drawn = [int(index) for index in sampler.next(n)]
        everywhere = self.collective.gather([drawn])
        if any(other != everywhere[0] for other in everywhere):
            raise QreditError(
                f"the prompts '{sampler.name}' differ between processes: next() must be a function of its seed, its "
                "state and what it observed"
            )
        if len(drawn) != n:
            raise QreditError(f"the prompts '{sampler.name}' gave {len(drawn)} where {n} were asked for")
        for index in drawn:
            if not 0 <= index < len(self.dataset):
                raise QreditError(
                    f"the prompts '{sampler.name}' gave index {index}; the data set has rows 0 to "
                    f"{len(self.dataset) - 1}"
                )
        return drawn

    def share(self, drawn: Sequence[int]) -> list[int]:
        """This process's part of prompts that are given for all."""
        count = len(drawn) // self.collective.size
        return list(drawn[self.collective.rank * count :][:count])

    def rows(self, own: Sequence[int], m: int) -> list[dict[str, Any]]:
        """The data set's rows of some prompts, each m times in a row."""
        return [dict(self.dataset[index]) for index in own for _ in range(m)]

    def replace(self, own: Sequence[int], left_out: Sequence[GroupStatistics]) -> None:
        """Other prompts came in the place of some.

        Args:
            own: the prompts that this process will learn from.
            left_out: what its other groups showed.
        """
        self.used = self.collective.gather(list(own))
        self._seen += self.collective.gather([(len(self.used), statistics) for statistics in left_out])

    def observe(self, batch: RolloutBatch, complete: bool, last: bool) -> None:
        """Take in a micro-batch that was scored for the first time; tell the sampler at the last one of its generation.

        Args:
            batch: the micro-batch, scored.
            complete: it is the last of its optimiser step; a checkpoint may follow, which all processes must agree on.
            last: no other micro-batch of its generation is still to be scored.
        """
        self._own += summarize_groups(batch, self.used)
        if complete or last:
            self._seen += self.collective.gather(self._own)
            self._own = []
        if last:
            self.sampler.observe([statistics for _, statistics in sorted(self._seen, key=lambda seen: seen[0])])
            self._seen = []

    def state_dict(self) -> dict[str, Any]:
        seen = [[place, asdict(statistics)] for place, statistics in self._seen]
        own = {self.sampler.name: self.sampler.state_dict()}
        return {"sampler": own, "asked": self.asked, "used": self.used, "seen": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            QreditError: it is that of another sampler.
        """
        self._check_same(*state["sampler"])
        self.sampler.load_state_dict(state["sampler"][self.sampler.name])
        self.asked, self.used, self._own = list(state["asked"]), list(state["used"]), []
        self._seen = [(place, GroupStatistics(**statistics)) for place, statistics in state["seen"]]

    def skip_generations(self, generations: int) -> None:
        """Go on behind that many generations of the plain order: a checkpoint of a former version says no more.

        Raises:
            QreditError: the sampler is another one.
        """
        self._check_same(SHUFFLED)
        self.begin()
        for _ in range(generations):
            self.next_generation()

    def _check_same(self, written: str) -> None:
        if written != self.sampler.name:
            raise QreditError(
                f"the checkpoint was written with the prompts '{written}', not with '{self.sampler.name}'"
            )
