"""Makers of fields that do not look at rollouts: teachers, which models are asked, and models that learn beside one."""

from abc import abstractmethod
from typing import Any, ClassVar

from qredit.engine.learner import Learner
from qredit.rollouts.field_maker import FieldMaker


class TeacherMaker(FieldMaker):
    """A maker of `logp@NAME`, and of `kl@NAME` and its like where its teacher tells divergences."""

    fills: ClassVar[tuple[str, ...]] = ("logp@",)

    @abstractmethod
    def make_teacher(self) -> Any:
        """What a trainer's `teachers` takes: a path, a `Hint`, or a `Teacher`."""


class LearnerMaker(FieldMaker):
    """A maker of the fields that a learner fills."""

    @abstractmethod
    def make_learner(self, field: str) -> Learner:
        """A new learner, without anything learned yet.

        Args:
            field: that it is given for.
        """
