"""Search trees of reasoning steps, and write what a process reward model is trained on.

GroundedPRM (arXiv 2510.14942): rationales are drawn behind the steps that UCT selects, a check says of each step
whether it is right, and the values that are backed up from checks and answers label the steps. FILE.partial keeps what
is done, and the same command goes on from it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from qredit.cli.parser import Parser, add_options, build_options, select_fields
from qredit.cli.shared_options import SHARED_OPTIONS, list_settings, list_template_options, split_sources
from qredit.runs.options import EPISODE_OPTIONS, TrainOptions, check_minimums, option
from qredit.utils.atomic_files import check_new_file, write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.formatting import format_share
from qredit.utils.sanitize import escape_control_chars, to_json_line

if TYPE_CHECKING:
    from qredit.tasks.base import Example

SHARED = (
    "model",
    *(name for name in SHARED_OPTIONS if name not in ("env", "tools", *EPISODE_OPTIONS)),
    "hold_out",
    "reward",
)
_UNSAID = ("output", "best")  # where things are written changes no row


@dataclass(frozen=True)
class SearchOptions:
    """What is searched, how far, and who says what is right."""

    output: str = option("steps.jsonl", "file of the labelled rationales")
    best: str | None = option(None, "file of the best right rationale of each prompt, as rows for `qredit sft`")
    check: str = option("arithmetic()", "what says whether a step is right: arithmetic(), judge(url, model), or yours")
    steps: str = option("blank_lines", "what ends a step of a rationale", "blank_lines", "sentences")
    examples: int | None = option(None, "examples, in hash order; default: all")
    split: str = option("train", "which they are of", "train", "validation", "test")
    rounds: int = option(8, "steps that are expanded for each prompt, at most")
    children: int = option(3, "rationales drawn behind a step when it is expanded")
    wanted: int = option(3, "right rationales that are looked for, then wrong ones; with both a prompt is done")
    exploration: float = option(1.414, "weight in UCT of what was visited little")
    prompts_per_batch: int = option(16, "prompts searched together, and kept together")
    seed: int = option(0, "seed of the draws")

    def __post_init__(self) -> None:
        least = {"examples": 1, "rounds": 1, "children": 1, "wanted": 1, "prompts_per_batch": 1, "seed": 0}
        check_minimums(self, {**least, "exploration": 0})
        if not math.isfinite(self.exploration):
            raise QreditError(f"exploration must be a finite number, got {self.exploration}")


def add_arguments(parser: Parser) -> None:
    """The options of the search, then those it shares with training."""
    add_options(parser, SearchOptions, "search")
    add_options(parser, select_fields(TrainOptions, SHARED), "model, data and format, as in `qredit train`")
    parser.extra_types = list_template_options


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Search every prompt, write the rows, say what they hold.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    own, shared = split_sources([("the command line", given)], SearchOptions, SHARED)
    asked = build_options(SearchOptions, own)
    options = build_options(TrainOptions, shared, list_template_options)
    from qredit.checks.parsing import parse_check
    from qredit.runs.progress_bars import make_progress_bars
    from qredit.runs.row_file import RowFile
    from qredit.search.grow import SearchPlan
    from qredit.search.setup import check_parts, load_search, search_part

    check = parse_check(asked.check)
    file = RowFile(Path(asked.output).expanduser(), list_settings(asked, options, SHARED, _UNSAID))
    file.check_free()
    best = None if asked.best is None else Path(asked.best).expanduser()
    if best is not None:
        if best.resolve() in (file.path.resolve(), file.partial.resolve()):
            raise QreditError(f"best={best} is where the rows are written; give another --best")
        check_new_file(best, "the best rationales", "--best")
    setup = load_search(options, asked.split, asked.examples, asked.steps, check)  # type: ignore[arg-type]
    plan = SearchPlan(asked.rounds, asked.children, asked.wanted, asked.exploration)
    size = asked.prompts_per_batch
    with make_progress_bars(progress) as bars:
        done = file.open() * size
        check_parts(file.parts, setup, size, file.partial)
        bar = bars.add_task("search", total=len(setup.examples), completed=min(done, len(setup.examples)), note="")
        for start in range(done, len(setup.examples), size):
            file.add(search_part(setup, slice(start, start + size), plan, asked.seed))
            bars.update(bar, completed=min(start + size, len(setup.examples)))
    rows = file.rows
    if best is not None:
        write_text_atomic(best, "".join(map(to_json_line, list_best(rows, setup.examples))))
    told = count_rows(rows) | {"prompts": len(setup.examples), "notes": list(setup.notes)}
    file.close([row for row in rows if row["labels"]])
    _show(told, out)
    written = file.path if told["labelled"] else None
    for name, path in (("rows", written), ("best", best)):
        if path is not None:
            out.print(f"{name}: {escape(escape_control_chars(str(path)))}", soft_wrap=True)
    return {**told, "rows": None if written is None else str(written), "best": None if best is None else str(best)}


def list_best(rows: Sequence[Mapping[str, Any]], examples: Sequence["Example"]) -> list[dict[str, Any]]:
    """The right rationale of the best rank of each prompt that has one, as rows of own data.

    Args:
        rows: of a search.
        examples: that were searched.
    """
    right = sorted((row for row in rows if row["right"]), key=lambda row: -int(row["rank"]))
    found = {row["id"]: {name: row[name] for name in ("rationale", "answer")} for row in right}  # the last one stays
    return [{"id": one.id, "prompt": one.prompt, **found[one.id]} for one in examples if one.id in found]


def count_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rows of a search hold, in numbers."""
    labels = Counter(label for row in rows for label in row["labels"])
    verdicts = Counter(verdict for row in rows for verdict in row["verdicts"])
    return {
        "rationales": len(rows),
        "right": sum(row["right"] for row in rows),
        "labelled": sum(bool(row["labels"]) for row in rows),
        "steps": sum(verdicts.values()),
        "good_steps": labels[True],
        "bad_steps": labels[False],
        "checked_right": verdicts[True],
        "checked_wrong": verdicts[False],
    }


def _show(told: Mapping[str, Any], out: Console) -> None:
    for note in told["notes"]:
        out.print(escape(escape_control_chars(note)), soft_wrap=True)
    kept, steps = told["labelled"], told["steps"]
    checked = told["checked_right"] + told["checked_wrong"]
    out.print(
        f"{told['rationales']} rationales of {told['prompts']} prompts, {told['right']} right; {kept} have labels"
    )
    out.print(
        f"{steps} steps; labelled good {told['good_steps']}, bad {told['bad_steps']}; "
        f"the check told {format_share(checked / max(steps, 1))} of them, {told['checked_wrong']} wrong"
    )
