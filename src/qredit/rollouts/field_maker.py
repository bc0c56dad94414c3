"""Makers of batch fields that have a name and arguments, and what they are given of a run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from qredit.core.field_names import field_kind
from qredit.rollouts.field_functions import FieldFunction
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError


class FieldMaker(ABC):
    """What `--field NAME=maker(…)` names: a frozen dataclass of its arguments.

    Attributes:
        fills: the fields that it can fill: names, a parameter behind an @ left out (`logp@` stands for `logp@NAME`).
    """

    fills: ClassVar[tuple[str, ...]]

    @property
    def reads_gold(self) -> bool:
        """Whether it cannot do without reference answers."""
        return False

    @property
    def needs(self) -> frozenset[str]:
        """Batch fields that it reads and another maker fills."""
        return frozenset()

    @property
    def own_functions(self) -> tuple[Callable[..., Any], ...]:
        """Functions of the user's that it calls: what is made hangs on their code, too."""
        return ()

    def list_fields(self, name: str) -> frozenset[str]:
        """The fields that it fills where it is given for `name`, that one among them."""
        return frozenset({name})

    def check_name(self, name: str) -> None:
        """Refuse to be given for a field that it does not make.

        Raises:
            QreditError: names the fields that it makes.
        """
        if field_kind(name) not in self.fills:
            made = " or ".join(f"{kind}NAME" if kind.endswith("@") else kind for kind in self.fills)
            raise QreditError(f"field {name}: {type(self).__name__} makes {made}")


@dataclass(frozen=True)
class FieldTools:
    """What a maker may use beside the rollouts.

    Attributes:
        tokenizer: of the run, to decode with; nothing is encoded again.
        log_metric: (name, number): the mean over a generation and all processes is logged.
        answer: (rollouts, a number of tokens for each) → each with its thinking cut behind so many tokens and closed by
            force, with an answer sampled behind that, its text and its reward. Every process asks for as many. None
            where rollouts cannot be gone on with.
        close_ids: ids of the closing of thinking as it is forced.
    """

    tokenizer: Any
    log_metric: Callable[[str, float], None]
    answer: Callable[[Sequence[Trajectory], Sequence[int]], list[Trajectory]] | None = None
    close_ids: Sequence[int] = ()


class RolloutMaker(FieldMaker):
    """A maker that looks at sampled rollouts, all of one call at once.

    Its fields are a function of the rollouts and of what it asks others of them: it has no state to be saved.

    Attributes:
        one_turn: it takes a rollout for one rationale and one answer, so it cannot be had with tools or an environment.
    """

    one_turn: ClassVar[bool] = False

    @property
    def columns(self) -> frozenset[str]:
        """Further columns of the data that it reads."""
        return frozenset()

    def check_examples(self, examples: Sequence[Example]) -> None:
        """Refuse rows that it cannot make its fields of, before anything is sampled.

        Raises:
            QreditError: names the row.
        """

    @abstractmethod
    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        """Its fields by name: for each trajectory a number, or one for each of its tokens from the first on.

        Booleans become a span, whole numbers are -1 where none is given, other numbers 0.

        Args:
            trajectories: with their texts, groups, examples and rewards; whole groups.
            tools: of the run.
        """


def find_read(needs: Collection[str], makers: Mapping[str, FieldFunction | FieldMaker]) -> frozenset[str]:
    """The fields that are read: by an objective, or by a maker of a field that it reads.

    Args:
        needs: of the objective.
        makers: by the field that each is given for.
    """
    read = [maker.needs for name, maker in makers.items() if name in needs and isinstance(maker, FieldMaker)]
    return frozenset(needs).union(*read)


def make_fields(
    makers: Mapping[str, FieldFunction | RolloutMaker], trajectories: Sequence[Trajectory], tools: FieldTools
) -> dict[str, Sequence[FieldValues]]:
    """The fields of some rollouts, by name; a maker of several is asked once.

    Args:
        makers: who makes each field.
        trajectories: as `RolloutMaker.make` takes them.
        tools: of the run.
    """
    made: dict[str, Sequence[FieldValues]] = {}
    for name, maker in makers.items():
        if name not in made:
            made |= (
                maker.make(trajectories, tools)
                if isinstance(maker, RolloutMaker)
                else {name: maker(trajectories, tools.tokenizer)}
            )
    return {name: made[name] for name in makers}
