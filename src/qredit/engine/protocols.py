"""What the parts of a run ask of each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from qredit.core.objective import Objective
from qredit.engine.collective import Collective
from qredit.evaluation.metrics import QuestionResult
from qredit.rewards.reward_spec import Reward
from qredit.tasks.base import Example
from qredit.utils.stateful import Stateful


class ObjectiveOverride(Stateful, Protocol):
    """A part that changes the objective while a run goes on; every process is told the same and decides the same."""

    def now(self) -> Objective | None:
        """The objective that it asks for; None while it leaves the choice to others."""

    def list_decisions(self) -> list[dict[str, Any]]:
        """What it decided so far, in order: step (the last one before it), change and reason, in words."""


class RevertibleRun(Protocol):
    """A run that can return to an earlier checkpoint of its own, and what its groups show.

    Attributes:
        objective: the one it was given.
        step_success: of the groups of the last step, over all processes: mean likelihood, or mean reward where the
            objective reads none; None before the first step.
        collective: the processes that train together.
    """

    collective: Collective

    @property
    def objective(self) -> Objective: ...

    @property
    def step_success(self) -> Sequence[float] | None: ...

    def check_revertible(self, slower: bool) -> None:
        """Refuse settings under which weights cannot be restored or, for `slower`, learning rates cannot be changed.

        Raises:
            QreditError: naming the setting.
        """

    def find_checkpoint(self, step: int) -> Path | None:
        """The newest whole checkpoint of this step or of an earlier one; every process is told the same."""

    def restore_weights(self, checkpoint: Path) -> None:
        """Take back weights, the optimiser's moments and the state of stages; the data go on where they are."""

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the learning rate of this and all later steps."""


class AnsweringRun(Protocol):
    """A run whose weights answer questions while it goes on."""

    def answers(
        self, examples: Sequence[Example], rewards: Sequence[Reward], k: int, seed: int
    ) -> list[QuestionResult]:
        """k sampled answers to each question, scored; every process answers its share and is given all.

        Args:
            examples: questions with their reference answers.
            rewards: the first decides on success.
            k: samples of a set: the k of p@k and m@k.
            seed: all draws are a function of it.
        """

    def log_with_step(self, values: Mapping[str, float]) -> None:
        """Have values logged beside those of the step."""


class InspectableRun(Protocol):
    """A run that can show what it learns from."""

    def first_group(self) -> dict[str, Any] | None:
        """Prompt, completions and rewards of the first group in use; None where it was sampled before a resume."""
