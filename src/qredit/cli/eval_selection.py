"""What `qredit eval --select` shows of each rule: its success, and by how much it is above the majority."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qredit.utils.sanitize import escape_control_chars

if TYPE_CHECKING:
    from qredit.selection.outcome import JudgeRecord, Outcome

CHANCE = 0.5


def show_outcomes(outcomes: "Sequence[Outcome]", k: int, out: Console) -> None:
    """A table of the rules, and a line about each judge.

    Args:
        outcomes: of the rules.
        k: samples of a question.
        out: where they are shown.
    """
    table = Table(title=f"one of {k} samples, chosen by a rule", title_justify="left")
    table.add_column("rule", overflow="fold")
    table.add_column("%", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("points above majority", justify="right")
    for one in outcomes:
        success, gain = one.success, one.gain
        table.add_row(
            escape(escape_control_chars(one.rule)),
            f"{100 * success.value:.1f}",
            f"{100 * success.low:.1f} – {100 * success.high:.1f}",
            "" if gain is None else gain.format(lambda value: f"{100 * value:+.1f}"),
        )
    out.print(table)
    out.print("a tie counts its expectation; both intervals redraw questions, the last with both choices of each")
    for one in outcomes:
        for line in describe_judge(one):
            out.print(escape(escape_control_chars(f"{one.rule}: {line}")), soft_wrap=True)


def describe_judge(outcome: "Outcome") -> list[str]:
    """What came of a judge's questions, and whether it does better than guessing."""
    counts, told = outcome.selected.counts, []
    if counts:
        told.append(
            f"{counts['asked']} questions to the judge, {counts['unanswered']} without a reply, "
            f"{counts['unreadable']} with one that cannot be read"
        )
    if outcome.judge is not None:
        told += _describe_games(outcome.judge)
    return told


def _describe_games(judge: "JudgeRecord") -> list[str]:
    lines = [
        f"{judge.games} pairs compared in both orders: the order alone decided {judge.swayed}, "
        f"{judge.unread} were not judged"
    ]
    if judge.told is not None:
        at_chance = judge.told.low <= CHANCE <= judge.told.high
        lines.append(
            f"of the decided pairs of a right and a wrong answer the right one won "
            f"{judge.told.format(lambda value: f'{100 * value:.0f}')} %: "
            f"{'not told from guessing (50 %)' if at_chance else 'a judge that guesses has 50 %'}"
        )
    return lines


def record_outcome(outcome: "Outcome") -> dict[str, Any]:
    """For JSON."""
    judge = None if outcome.judge is None else asdict(outcome.judge)
    gain = None if outcome.gain is None else asdict(outcome.gain)
    return {"success": asdict(outcome.success), "above_majority": gain, **outcome.selected.counts, "judge": judge}
