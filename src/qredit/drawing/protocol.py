"""What decides how the rollouts of a generation are drawn: rules that keep no state.

By default M rollouts of each prompt are drawn behind it, by the policy itself. A rule may draw some of them in another
way: at another temperature, or behind the beginning of a rollout that was drawn before.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from qredit.rollouts.trajectory import Trajectory

Row = Mapping[str, Any]
"""A row of the data set, with the ids of its prompt."""


class DrawingTools(Protocol):
    """What a rule draws with: one generation on one process of several.

    Every process calls the same methods in the same order, and asks `draw` and `go_on` for as many rollouts.

    Attributes:
        tokenizer: of the run, to decode with; nothing is encoded again.
        seed: of what the rule itself draws, another one for each generation and process.
    """

    @property
    def tokenizer(self) -> Any: ...

    @property
    def seed(self) -> int: ...

    def draw(self, rows: Sequence[Row], part: int = 0, temperature: float | None = None) -> list[Trajectory]:
        """One rollout behind the prompt of each row, not scored yet.

        Args:
            rows: of the data set, one for each rollout.
            part: number of this draw in the generation. Draw 0 is what a run without a rule draws.
            temperature: in the place of the run's own. What the sampler says of these tokens is not their density
                under the policy, and is left out.
        """
        ...

    def go_on(self, beginnings: Sequence[Trajectory], part: int) -> list[Trajectory]:
        """One rollout behind each beginning: it thinks on, and answers.

        Args:
            beginnings: made by `begin_as`, or without any token.
            part: as in `draw`.
        """
        ...

    def measure_entropy(self, drawn: Sequence[Trajectory]) -> list[list[float]]:
        """The entropy in nats of the distribution that each token behind the prompt was drawn from, by a forward pass.

        Args:
            drawn: rollouts.
        """
        ...

    def score(self, drawn: Sequence[Trajectory], rows: Sequence[Row], m: int, apart: bool = False) -> list[Trajectory]:
        """The rollouts with texts, groups, rewards and made fields.

        Args:
            drawn: the m of each prompt together.
            rows: the data set's row of each of them.
            m: rollouts per prompt.
            apart: their rewards say nothing of the policy, and are no part of what is logged of it.
        """
        ...

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all processes, in the order of processes."""
        ...

    def log(self, name: str, value: float) -> None:
        """Have a number logged with the step; that of process 0 counts."""
        ...


class Drawing(Protocol):
    """A rule. It is asked once for each generation of training; evaluations draw as ever.

    Attributes:
        fills: batch fields that say which rollouts it drew in another way, and that the objective must read.
        independent: whether the rollouts of a prompt are independent draws of the policy, or are left out of the
            statistics of their group.
    """

    fills: ClassVar[frozenset[str]]
    independent: ClassVar[bool]

    def check_size(self, size: int) -> None:
        """Refuse groups that the rule cannot fill.

        Raises:
            QreditError: names the rule, the size, and what it may be.
        """
        ...

    def check_vocabulary(self, size: int) -> None:
        """Refuse a vocabulary with which the rule cannot do.

        Raises:
            QreditError: names the argument, its value, and what it may be.
        """
        ...

    def draw(self, rows: Sequence[Row], m: int, tools: DrawingTools) -> list[Trajectory]:
        """The rollouts of a generation on this process, scored: m of each prompt, in order.

        Args:
            rows: of the data set, one for each prompt.
            m: rollouts per prompt.
            tools: of the run.
        """
        ...


def repeat_rows(rows: Sequence[Row], m: int) -> list[Row]:
    """Each row m times in a row."""
    return [row for row in rows for _ in range(m)]
