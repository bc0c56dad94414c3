"""Make rows for `qredit sft` of wrong rollouts: their first wrong step replaced by the model that is shown a solution.

InT (arXiv 2601.14209). Of each wrong rollout of RUN the model, shown a right solution, names the first wrong step and
writes another in its place. Kept are those that do not tell the answer and behind which one of --continuations is
right. A row is the beginning and the new step, as token ids: `qredit sft --completions FILE` imitates both and nothing
behind them, and `qredit train` goes on from there (docs/sft.md).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape

from qredit.cli.offline_options import check_model_known, read_source_run
from qredit.cli.parser import Parser, add_options, build_options, select_fields
from qredit.cli.shared_options import list_settings, list_template_options, split_sources
from qredit.runs.options import TrainOptions, check_minimums, option
from qredit.utils.atomic_files import check_new_file
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars

if TYPE_CHECKING:
    from qredit.selection.judges import Judge

SHARED = ("model", "seed", "cpu")
_HELP = {"model": "model folder or id, in the place of RUN's final model"}


@dataclass(frozen=True)
class InterveneOptions:
    """Which rollouts are corrected, by whom, and what is kept."""

    run: str | None = option(None, "run folder whose wrong rollouts are corrected")
    output: str = option("corrections.jsonl", "file of the rows, a line for each")
    rollouts: int | None = option(
        None, "rollouts to sample for each training question with the model; default: those that the run kept"
    )
    solution_column: str | None = option(
        None, "column that holds a right solution (task jsonl), a.b for b inside a; default: the task's own rationales"
    )
    steps: Literal["blank_lines", "sentences"] = option(
        "blank_lines", "what ends a step of a rationale", "blank_lines", "sentences"
    )
    by: str | None = option(
        None,
        "who names the wrong step and writes another, endpoint('URL', 'MODEL') or local('MODEL', max_tokens=200); "
        "default: the model",
    )
    step_tokens: int = option(200, "tokens that a new step must stay below")
    continuations: int = option(32, "continuations behind the new step, of which one must be right")
    per_prompt: int = option(1, "wrong rollouts of a question that are corrected, at most")

    def __post_init__(self) -> None:
        least = {"rollouts": 1, "step_tokens": 2, "continuations": 1, "per_prompt": 1}
        check_minimums(self, least)
        cut = getattr(self.judge, "max_tokens", None)  # refuses a text that cannot be read
        if cut is not None and cut < self.step_tokens:
            raise QreditError(
                f"by: replies are cut at max_tokens={cut}, and a step that was cut would be kept; give max_tokens of "
                f"at least step_tokens={self.step_tokens}"
            )

    @property
    def judge(self) -> "Judge | None":
        """Who is asked in the model's place."""
        if self.by is None:
            return None
        from qredit.objectives.parsing import read_kind
        from qredit.selection.judges import JUDGES, Judge  # here, for they load torch

        return read_kind(self.by, JUDGES, "by", "judge", Judge)  # type: ignore[no-any-return]


def add_arguments(parser: Parser) -> None:
    """The options of the command, then those it shares with training."""
    add_options(parser, InterveneOptions, "corrections")
    add_options(parser, select_fields(TrainOptions, SHARED, _HELP), "options, as in `qredit train`")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Correct the wrong rollouts, write the rows, say what became of the others.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    own, shared = split_sources([("the command line", given)], InterveneOptions, SHARED)
    asked = build_options(InterveneOptions, own)
    path = Path(asked.output).expanduser()
    check_new_file(path, "the rows")
    _, inherited = read_source_run(asked.run, "whose wrong rollouts are corrected")
    check_model_known(str(asked.run), inherited, *(source for _, source in shared))
    options = build_options(TrainOptions, [(str(asked.run), inherited), *shared], list_template_options)
    if asked.solution_column is not None and options.task != "jsonl":
        raise QreditError(f"solution_column names a column of task jsonl, not of {options.task}; leave it out")
    judge = asked.judge
    if judge is not None:
        judge.check_model()
    from qredit.runs.intervening import intervene
    from qredit.runs.row_file import RowFile

    file = RowFile(path, list_settings(asked, options, SHARED, ("output",)))
    file.check_free()
    made = intervene(
        options,
        Path(str(asked.run)).expanduser(),
        asked.solution_column,
        progress,
        rollouts=asked.rollouts,
        steps=asked.steps,
        judge=None if judge is None else judge.ask,
        step_tokens=asked.step_tokens,
        tries=asked.continuations,
        per_prompt=asked.per_prompt,
        file=file,
    )
    _show(made.rows, made.reasons, path, out)
    return {
        "rows": str(path) if made.rows else None,
        "kept": len(made.rows),
        "wrong_rollouts": len(made.rows) + sum(made.reasons.values()),
        "left_out": dict(made.reasons),
    }


def _show(rows: Sequence[Mapping[str, Any]], reasons: Counter[str], file: Path, out: Console) -> None:
    """What was kept, and why the others were not.

    Args:
        rows: that were kept.
        reasons: how often each was why a rollout gave none.
        file: of the rows.
        out: where it is shown.
    """
    from qredit.runs.interventions import REASONS

    out.print(f"{len(rows)} of {len(rows) + sum(reasons.values())} wrong rollouts give a row")
    for name, count in reasons.items():
        out.print(f"{count}: {REASONS[name]}")
    if rows:
        out.print(f"rows: {escape(escape_control_chars(str(file)))}", soft_wrap=True)
    else:
        out.print("no row was kept, so no file was written")
