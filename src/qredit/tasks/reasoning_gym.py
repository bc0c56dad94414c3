"""Generators of the package reasoning-gym: a hundred kinds of puzzles, each with knobs and a score of its own."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from qredit.tasks.base import PLACE_KEY, Example, Record, RecordsWithNotes, Split, Style, Task, hash_id
from qredit.tasks.pocket.scene import refuse_source
from qredit.tasks.task_call import TaskCall, parse_task_call
from qredit.utils.errors import QreditError, check_count, unknown_name_error
from qredit.utils.extras import require_extras
from qredit.utils.sanitize import summarize_error

FAMILY = "reasoning-gym"
SIZES: Mapping[Split, int] = {"train": 2000, "validation": 200, "test": 400}
ONE_ANSWER = frozenset(
    (
        *("ab", "arc_agi", "binary_matrix", "bitwise_arithmetic", "calendar_arithmetic", "chain_sum", "circuit_logic"),
        *("codeio", "color_cube_rotation", "complex_arithmetic", "decimal_chain_sum", "dice", "emoji_mystery"),
        *("family_relationships", "figlet_font", "fraction_simplification", "futoshiki", "game_of_life"),
        *("game_of_life_halting", "gsm_symbolic", "letter_jumble", "manipulate_matrix", "mini_sudoku"),
        *("needle_haystack", "number_sorting", "path_star", "products", "rearc", "rectangle_count", "self_reference"),
        *("sentence_reordering", "spell_backward", "spiral_matrix", "string_insertion", "sudoku", "survo"),
        *("time_intervals", "tsumego", "word_sorting", "zebra_puzzles"),
    )
)
"""Generators that score answers in their own way, all of it against one right answer (read in version 0.1.25).

Of the others a generator has one where it keeps the package's common score, which compares with the one answer. Where
several texts can be right in substance (another path, another order, any number within a tolerance) it has not.
"""
_RUNS_TEXT = ("eval(", "parse_expr(")


def make_reasoning_gym_task(member: str, **knobs: Any) -> Task:
    """The task over the entries of one generator. Both styles ask its question as it is.

    The reward is the generator's own score, in [0, 1]. Only 1 is a success.

    Args:
        member: the generator's name, such as "chain_sum".
        knobs: fields of its configuration, such as min_terms=2. `size` is the number of training entries and `seed`
            where they begin.

    Raises:
        QreditError: the package is missing, there is no such generator or knob, or it refuses a value.
    """
    require_extras(f"task {FAMILY}:{member}", FAMILY)
    for name, least in (("seed", 0), ("size", 1)):
        check_count(f"{FAMILY}:{member}: {name}", knobs.get(name, least), least)
    call = TaskCall(FAMILY, member, knobs)
    scored = type(_generator(call.text))
    sizes = {**SIZES, "train": knobs.get("size", SIZES["train"])}
    one = has_one_answer(member, scored.score_answer is _common_score())

    def read(source: str | None, split: Split) -> RecordsWithNotes:
        refuse_source(call.text, source)
        trained = {_entry(call.text, number)["question"] for number in range(sizes["train"])}
        start = {"train": 0, "validation": sizes["train"], "test": sizes["train"] + sizes["validation"]}[split]
        found = [_record(call.text, number) for number in range(start, start + sizes[split])]
        kept = [record for record in found if split == "train" or record["question"] not in trained]
        return RecordsWithNotes(kept, tuple(_notes(call.text, scored, one, len(found) - len(kept))))

    return Task(
        name=call.text,
        summary=f"generated: {member} of the package reasoning-gym, with its own score as reward",
        read=read,
        render=render,
        reward="qredit.tasks.reasoning_gym:reasoning_gym_score",
        metrics=("exact_match",),
        sizes=sizes,
        single_answer=one,
    )


def has_one_answer(member: str, common_score: bool) -> bool:
    """Whether an entry has exactly one right answer, so that its likelihood may be trained."""
    return common_score or member in ONE_ANSWER


def render(record: Record, style: Style) -> Example:
    """The question. The columns say which entry it is, for the score.

    Args:
        record: question, answer, id, generator (the task as it is written) and entry (its number).
    """
    columns = {name: record[name] for name in ("generator", "entry")}
    return Example(record["question"], record["answer"], record["id"], columns=columns)


def reasoning_gym_score(
    *, response: Sequence[str], generator: Sequence[str], entry: Sequence[int], **columns: Any
) -> list[float]:
    """The generator's own score of each answer: a reward function with TRL's arguments.

    Args:
        response: sampled answers.
        generator: name of the generator of each question.
        entry: number of each question among those of its generator.
    """
    return [
        float(_generator(text).score_answer(said.strip(), _entry(text, number)))
        for said, text, number in zip(response, generator, entry, strict=True)
    ]


def list_generators() -> list[str]:
    """The names of all generators of the installed package."""
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


@functools.lru_cache(maxsize=8)
def _generator(text: str) -> Any:
    """The generator of a task as it is written. It is endless for our purpose: entries are drawn by their number."""
    from reasoning_gym.factory import DATASETS

    call = parse_task_call(text)
    member, knobs = str(call.member), dict(call.arguments)
    if member not in DATASETS:
        raise unknown_name_error(f"generator of {FAMILY}", member, DATASETS)
    made, configuration = DATASETS[member]
    names = [field.name for field in dataclasses.fields(configuration)]
    for name in knobs:
        if name not in names:
            raise unknown_name_error(f"argument of {FAMILY}:{member}", name, names)
    sizes = {**SIZES, "train": knobs.get("size", SIZES["train"])}
    try:
        total = {"size": sum(sizes.values()), "seed": knobs.get("seed", 0)}
        found = configuration(**(knobs | total))
        return made(found)
    except Exception as error:  # the package refuses values by assertions, and in other ways of its own
        raise QreditError(f"{text}: {summarize_error(error)}") from None


@functools.lru_cache(maxsize=16384)
def _entry(text: str, number: int) -> Mapping[str, Any]:
    """An entry by its number. Kept, for some generators take long and one is not deterministic."""
    found: Mapping[str, Any] = _generator(text)[number]
    return found


def _record(text: str, number: int) -> Record:
    entry = _entry(text, number)
    question, answer = entry["question"], entry["answer"]
    if answer is None:
        raise QreditError(f"{text} states no answer for its entries, and every example needs one; choose another")
    return {
        "question": question,
        "answer": str(answer).strip(),
        "id": hash_id(f"{question}\n{answer}")[:16],
        "generator": text,
        "entry": number,
        PLACE_KEY: f"{text}, entry {number}",
    }


def _notes(text: str, scored: Any, one: bool, repeated: int) -> list[str]:
    """What has to be said: of the likelihood, of scores that run text, of questions that were trained on."""
    notes = []
    if not one:
        notes.append(f"{text} may accept several answers to an entry: reward it, the likelihood of one is not trained")
    if any(call in inspect.getsource(scored.score_answer) for call in _RUNS_TEXT):
        notes.append(
            f"{text} scores an answer by running it as Python or SymPy: do not score text that you do not trust"
        )
    if repeated:
        notes.append(f"{repeated} questions occur among the training entries and are left out")
    return notes


def _common_score() -> Any:
    from reasoning_gym.dataset import ProceduralDataset

    return ProceduralDataset.score_answer
