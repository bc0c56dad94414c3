"""Batch fields that options name: who makes them, and that everything which an objective reads is made."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qredit.engine.learner import Learner, Learners
from qredit.fields._kinds import LearnerMaker, TeacherMaker
from qredit.fields.parsing import parse_field, parse_fields
from qredit.rollouts.field_functions import EPISODE_FIELDS, FieldFunction
from qredit.rollouts.field_maker import FieldMaker, RolloutMaker, find_read
from qredit.runs.load import find_weights
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example
from qredit.trl.checks import resolve_field_functions
from qredit.trl.teachers import Hint, TeacherSpec
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class MadeFields:
    """The makers of a run, by what a trainer takes them as.

    Attributes:
        functions: by the field that each makes.
        teachers: by name.
        learners: models that learn beside the policy.
    """

    functions: Mapping[str, FieldFunction | RolloutMaker]
    teachers: Mapping[str, TeacherSpec]
    learners: Sequence[Learner]

    @property
    def reads_columns(self) -> bool:
        """Whether further columns of the data may be read: by a function of the user's, or by a maker that says so."""
        return any(not isinstance(maker, RolloutMaker) or maker.columns for maker in self.functions.values())

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse rows that a maker cannot read.

        Raises:
            QreditError: as `RolloutMaker.check_examples`.
        """
        for maker in self.functions.values():
            if isinstance(maker, RolloutMaker):
                maker.check_examples(examples)


def load_fields(options: TrainOptions) -> MadeFields:
    """The makers that options name, sorted by kind.

    Raises:
        QreditError: as `parse_fields`; two makers for one teacher.
    """
    given = options.make_fields()
    teachers: dict[str, TeacherSpec] = {}
    for name, maker in given.items():
        if isinstance(maker, TeacherMaker):
            teacher = name.split("@")[1]
            if teacher in teachers:
                raise QreditError(f"field {name}: one maker tells all that is read of {teacher}; give it once")
            teachers[teacher] = maker.make_teacher()
    return MadeFields(
        {
            name: maker
            for name, maker in given.items()
            if isinstance(maker, RolloutMaker) or not isinstance(maker, FieldMaker)
        },
        teachers,
        [maker.make_learner(name) for name, maker in given.items() if isinstance(maker, LearnerMaker)],
    )


def locate_teachers(teachers: Mapping[str, TeacherSpec], options: TrainOptions) -> dict[str, TeacherSpec]:
    """Those that are named by folder or id as the run's own model may be, by where their weights are; others as given.

    Args:
        teachers: by name.
        options: of the run.

    Raises:
        QreditError: as `find_weights`; names the teacher.
    """

    def locate(teacher: TeacherSpec) -> TeacherSpec:
        if isinstance(teacher, Hint) and teacher.model is not None:
            return replace(teacher, model=locate(teacher.model))
        return find_weights(options, teacher) if isinstance(teacher, str) else teacher

    found = {}
    for name, teacher in teachers.items():
        try:
            found[name] = locate(teacher)
        except QreditError as error:
            raise QreditError(f"teachers: '{name}': {error}") from None
    return found


def check_fields(options: TrainOptions) -> MadeFields:
    """The makers that options name, if everything that the objective reads is made and every teacher is there.

    Raises:
        QreditError: as `load_fields`, `resolve_field_functions` and `locate_teachers`.
    """
    made = load_fields(options)
    resolve_field_functions(options.make_objective(), made.functions, made.teachers, Learners(made.learners))
    return replace(made, teachers=locate_teachers(made.teachers, options))


def describe_replaced(options: TrainOptions) -> list[str]:
    """Which fields come from a maker though tools or an environment are there to give them, a line for each."""
    if not (options.env or options.tools):
        return []
    given = (text.partition("=") for text in options.field)
    return [
        f"{name.strip()} is filled by {maker.strip()}, in the place of what the environment gives"
        for name, _, maker in given
        if name.strip() in EPISODE_FIELDS
    ]


def select_read(fields: Sequence[str], options: TrainOptions) -> tuple[str, ...]:
    """Those of several fields, as the option takes them, that the objective of a run reads, or a maker of these.

    Raises:
        QreditError: as `parse_fields`.
    """
    read = find_read(options.make_objective().needs if fields else (), parse_fields(fields))
    return tuple(text for text in fields if parse_field(text)[0] in read)


def check_all_read(fields: Sequence[str], runs: Sequence[TrainOptions]) -> None:
    """Refuse a field that none of several runs has taken.

    Args:
        fields: each with its maker.
        runs: with the fields that each reads.

    Raises:
        QreditError: names the field.
    """
    for text in fields:
        if not any(text in run.field for run in runs):
            objectives = dict.fromkeys(str(run.make_objective()) for run in runs)
            raise QreditError(f"field {text}: none of {', '.join(objectives)} reads it")


def read_sources(options: TrainOptions) -> list[bytes]:
    """The files that the user's own functions are written in, as far as they are known."""
    own = [
        function
        for maker in options.make_fields().values()
        for function in (maker.own_functions if isinstance(maker, FieldMaker) else (maker,))
    ]
    return [Path(inspect.getfile(function)).read_bytes() for function in own if inspect.isfunction(function)]
