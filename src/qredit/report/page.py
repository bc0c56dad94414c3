"""The page itself: one HTML file with its style, script and data inside, made from text that nobody vouches for.

Whatever comes from a run is escaped: in the markup as HTML, by Jinja2 (`render.py`), in the data as JSON without `<`,
`>` and `&`. Characters that would change how the page reads, such as terminal codes and marks of writing direction, are
shown as escapes. The page's own policy allows its one script and style, by their hashes, and no request.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from markupsafe import Markup

from qredit.report.chart import draw_bars, draw_panel, make_style_class
from qredit.report.checklist import Item
from qredit.report.collect import RunData, parse_finite
from qredit.report.curves import compute_first_and_last, make_panels
from qredit.report.records import COMPARED_OBJECTIVES, prepare_records
from qredit.report.render import FOLDER, render
from qredit.report.sentences import TIME_LABELS, compare_runs, compute_mean_seconds, describe_run, format_reward
from qredit.utils.errors import QreditError
from qredit.utils.formatting import format_probability
from qredit.utils.sanitize import escape_control_chars

MAX_PAGE_BYTES = 6_000_000  # bytes of a page
GENERATOR_TAG = '<meta name="generator" content="qredit report">'
_ROOM = 100_000
_NOT_IN_JSON = {code: f"\\u{code:04x}" for code in map(ord, "<>&\u2028\u2029")}


def render_page(
    runs: Sequence[RunData], beside: Sequence[str] = COMPARED_OBJECTIVES, checklist: Sequence[Item] = ()
) -> str:
    """The whole page, under 6 MB: where the records of credit take more, every second, third, … of them is kept.

    Args:
        runs: what is shown.
        beside: objectives to recompute in the credit viewer.
        checklist: items of the reporting checklist; without any there is no such section.

    Raises:
        QreditError: the page is too large without any of them, or an objective of `beside` cannot be read.
    """
    records = [[dump_script_json(record) for record in prepare_records(run, beside)] for run in runs]
    empty = _filled(runs, [[] for _ in runs], any(records), checklist)
    room = MAX_PAGE_BYTES - _ROOM - len(empty.encode())
    if room < 0:
        raise QreditError(f"a page of {len(runs)} runs would exceed {MAX_PAGE_BYTES // 10**6} MB; give fewer")
    return _filled(runs, _thin_records(records, room), any(records), checklist)


def _thin_records(records: Sequence[Sequence[str]], room: int) -> list[list[str]]:
    """The records of each run, thinned evenly until all of them fit."""
    sizes = [[len(record.encode()) for record in own] for own in records]
    every = 1
    while sum(sum(own[::every]) for own in sizes) > room and every < max(map(len, records)):
        every += 1
    fits = sum(sum(own[::every]) for own in sizes) <= room
    return [list(own[::every]) if fits else [] for own in records]


def _filled(
    runs: Sequence[RunData], records: Sequence[Sequence[str]], recorded: bool, checklist: Sequence[Item]
) -> str:
    from qredit import __version__

    style, script = ((FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    data = (
        f'{{"name":{dump_script_json(run.name)},"records":[{",".join(own)}]}}'
        for run, own in zip(runs, records, strict=True)
    )
    what = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    filled = render(
        "page.html",
        title=f"qredit report: {what}",
        style=Markup(style),  # our own file
        script=Markup(script),  # our own file
        style_hash=_hash(style),
        script_hash=_hash(script),
        across=compare_runs(runs),
        runs=[
            _Told(run.name, make_style_class(place), describe_run(run), _options(run)) for place, run in enumerate(runs)
        ],
        overview=_overview(runs),
        figures=[_Figure(panel.title, draw_panel(panel), panel.note) for panel in make_panels(runs)],
        spent=_spent(runs),
        decisions=_decisions(runs),
        recorded=recorded,
        differences=_differences(runs),
        environment=_environment(runs),
        checklist=_checklist(checklist),
        data=Markup(f'{{"runs":[{",".join(data)}]}}'),  # `dump_script_json` left no markup in it
        version=__version__,
    )
    return str(filled)


def dump_script_json(value: Any) -> str:
    """Data as JSON that may stand inside a <script> element, its text made visible."""
    plain = json.dumps(_visible(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return plain.translate(_NOT_IN_JSON)


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return escape_control_chars(value)
    if isinstance(value, Mapping):
        return {escape_control_chars(str(key)): _visible(inner) for key, inner in value.items()}
    return [_visible(inner) for inner in value] if isinstance(value, list | tuple) else value


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


# --- what the template is given


@dataclass(frozen=True)
class _Table:
    """Rows of text under a head; the columns from `numeric_from` on are aligned as numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric_from: int = 10**6


@dataclass(frozen=True)
class _Told:
    """A run in words, and how its lines are drawn."""

    name: str
    look: str
    sentences: Sequence[str]
    options: _Table


@dataclass(frozen=True)
class _Figure:
    title: str
    drawn: Markup
    note: str


@dataclass(frozen=True)
class _Spent:
    """Where the time went: bars, the names of their parts, the numbers."""

    drawn: Markup
    names: Sequence[str]
    table: _Table


_COLUMNS = ("Run", "Objective", "Steps", "Reward, first", "Reward, last", "Held-out p@1", "p̂, last", "Entropy, last")
_MORE = ("Tokens, last", "ESS, last", "Seconds")


def _overview(runs: Sequence[RunData]) -> _Table:
    return _Table((*_COLUMNS, *_MORE), [_overview_row(run) for run in runs], numeric_from=2)


def _overview_row(run: RunData) -> list[str]:
    reward, held = compute_first_and_last(run, "reward"), run.held.get("p@1")
    total = sum(compute_mean_seconds(run).values())
    return [
        run.name,
        run.objective,
        str(run.steps),
        "" if reward is None else format_reward(run, reward[0].value),
        "" if reward is None else format_reward(run, reward[1].value),
        "" if held is None else f"{100 * held['value']:.1f} %",
        _end(run, "p_hat/log10_q50", format_probability),
        _end(run, "entropy", "{:.3g}".format),
        _end(run, "completions/mean_length", "{:.1f}".format),
        _end(run, "weights/ess", "{:.2f}".format),
        f"{total:.3g}" if total else "",
    ]


def _end(run: RunData, name: str, show: Callable[[float], str]) -> str:
    found = compute_first_and_last(run, name)
    return "" if found is None else show(found[1].value)


def _decisions(runs: Sequence[RunData]) -> _Table:
    rows = [
        [run.name, f"{one['step']:.0f}", _plain(one.get("change", "")), _plain(one.get("reason", ""))]
        for run in runs
        for one in run.decisions
    ]
    return _Table(("Run", "After step", "Change", "Why"), rows)


def _spent(runs: Sequence[RunData]) -> _Spent | None:
    spent = {run.name: found for run in runs if (found := compute_mean_seconds(run))}
    if not spent:
        return None
    names = [name for name in TIME_LABELS.values() if any(name in parts for parts in spent.values())]
    rows = [[run, *(f"{parts[name]:.3g}" if name in parts else "" for name in names)] for run, parts in spent.items()]
    return _Spent(
        draw_bars(spent, "s"), names, _Table(("Run", *(f"{name} (s)" for name in names)), rows, numeric_from=1)
    )


def _options(run: RunData) -> _Table:
    return _Table(("Option", "Value"), [[key, _said(run.config, key)] for key in run.config])


def _differences(runs: Sequence[RunData]) -> _Table:
    keys = dict.fromkeys(key for run in runs for key in run.config)
    differ = [key for key in keys if len({_said(run.config, key) for run in runs}) > 1]
    rows = [[key, *(_said(run.config, key) for run in runs)] for key in differ]
    return _Table(("Option", *(run.name for run in runs)), rows)


def _environment(runs: Sequence[RunData]) -> _Table:
    flat = [_flat(run.record) for run in runs]
    keys = dict.fromkeys(key for own in flat for key in own)
    return _Table(("", *(run.name for run in runs)), [[key, *(own.get(key, "") for own in flat)] for key in keys])


def _checklist(items: Sequence[Item]) -> _Table:
    rows = [
        [
            str(item.number),
            item.text,
            "required" if item.required else "recommended",
            item.finding.status,
            item.finding.told,
            item.finding.missing,
        ]
        for item in items
    ]
    return _Table(("", "Item", "", "Status", "What the runs tell", "What they do not"), rows)


def _flat(record: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Keys of keys joined, lists on lines of their own."""
    found: dict[str, str] = {}
    for key, value in record.items():
        name = f"{before}{key}"
        found |= _flat(value, f"{name} ") if isinstance(value, dict) else {name: _plain(value)}
    return found


def _said(config: Mapping[str, Any], key: str) -> str:
    return _plain(config[key]) if key in config else "not set"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{parse_finite(value):g}" if isinstance(value, float) and parse_finite(value) is not None else str(value)
