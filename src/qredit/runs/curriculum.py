"""The curriculum of a run: its columns from the data and a probe's file, and refusals before a model is loaded."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qredit.curricula.protocol import PROBE_PREFIX, Curriculum, CurriculumData
from qredit.runs.example_filter import check_same_data, hash_example, read_probe_file
from qredit.runs.options import TrainOptions, list_probed
from qredit.tasks.base import Example
from qredit.utils.errors import unknown_name_error


def prepare_curriculum(
    options: TrainOptions, examples: Sequence[Example]
) -> tuple[Curriculum | None, Sequence[Example]]:
    """The curriculum of a run, if its rows can be asked by it, and these rows with the numbers that it reads.

    Args:
        options: of the run.
        examples: that are trained on.

    Raises:
        QreditError: a column that is not there, a probe's file of other data or without such numbers; as
            `Curriculum.make`.
    """
    rule = options.make_curriculum()
    if rule is None:
        return None, examples
    probed = list_probed(rule)
    if probed and options.probe is not None:
        examples = add_probe_columns(examples, probed, Path(options.probe))
    there = sorted({name for example in examples for name in example.columns})
    rule.make(
        CurriculumData(
            prompts=len(examples),
            columns={name: [one.columns.get(name) for one in examples] for name in rule.columns if name in there},
            per_generation=options.prompts_per_step,
            generations=options.steps,
            seed=options.seed,
            others=tuple(there),
        )
    )
    return rule, examples


def add_probe_columns(examples: Sequence[Example], names: Sequence[str], path: Path) -> list[Example]:
    """The examples with further columns: numbers of a probe's file, None for those that were not probed.

    Args:
        examples: that are trained on.
        names: of the columns, each `probe.NAME`.
        path: what `qredit probe --per-prompt` wrote.

    Raises:
        QreditError: a file that is none, or of other data; a name that is no column of it.
    """
    rows = read_probe_file(path)
    numbers = sorted(set.intersection(*(set(row.numbers) for row in rows.values())))
    wanted = {name: name.removeprefix(PROBE_PREFIX) for name in names}
    for name in wanted.values():
        if name not in numbers:
            raise unknown_name_error("column", name, numbers)
    hashes = [hash_example(example) for example in examples]
    check_same_data(rows, examples, hashes, path)
    found = []
    for example, hash in zip(examples, hashes, strict=True):
        known = rows[hash].numbers if hash in rows else {}
        own = {name: known.get(number) for name, number in wanted.items()}
        found.append(replace(example, columns={**example.columns, **own}))
    return found
