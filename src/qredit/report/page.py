"""The page itself: one HTML file with its style, script and data inside, made from text that nobody vouches for.

Whatever comes from a run is escaped: in the markup as HTML, in the data as JSON without `<`, `>` and `&`. Characters
that would change how the page reads, such as terminal codes and marks of writing direction, are shown as escapes. The
page's own policy allows its one script and style, by their hashes, and no request.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from qredit.report.chart import bars, draw, look_of
from qredit.report.collect import RunData, number
from qredit.report.curves import ends, panels
from qredit.report.records import BESIDE, shown
from qredit.report.words import PARTS, across, as_share, seconds, sentences
from qredit.utils.errors import QreditError
from qredit.utils.plain import visible
from qredit.utils.power import power

LIMIT = 6_000_000  # bytes of a page
MARK = '<meta name="generator" content="qredit report">'
_ROOM = 100_000
_OWN = Path(__file__).parent
_NOT_IN_JSON = {code: f"\\u{code:04x}" for code in map(ord, "<>&\u2028\u2029")}
_UNRECORDED = (
    "None of these runs recorded credit: they have no credit.jsonl, which `qredit train` writes, or no record in it "
    "can be read. Train again to fill this section."
)


def page(runs: Sequence[RunData], beside: Sequence[str] = BESIDE) -> str:
    """The whole page, under 6 MB: where the records of credit take more, every second, third, … of them is kept.

    Raises:
        QreditError: the page is too large without any of them, or an objective of `beside` cannot be read.
    """
    records = [[as_json(record) for record in shown(run, beside)] for run in runs]
    empty = _filled(runs, [[] for _ in runs], any(records))
    room = LIMIT - _ROOM - len(empty.encode())
    if room < 0:
        raise QreditError(f"a page of {len(runs)} runs would exceed {LIMIT // 10**6} MB; give fewer")
    return _filled(runs, _fitting(records, room), any(records))


def _fitting(records: Sequence[Sequence[str]], room: int) -> list[list[str]]:
    """The records of each run, thinned evenly until all of them fit."""
    sizes = [[len(record.encode()) for record in own] for own in records]
    every = 1
    while sum(sum(own[::every]) for own in sizes) > room and every < max(map(len, records)):
        every += 1
    fits = sum(sum(own[::every]) for own in sizes) <= room
    return [list(own[::every]) if fits else [] for own in records]


def _filled(runs: Sequence[RunData], records: Sequence[Sequence[str]], recorded: bool) -> str:
    from qredit import __version__

    style, script = ((_OWN / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    data = (
        f'{{"name":{as_json(run.name)},"records":[{",".join(own)}]}}' for run, own in zip(runs, records, strict=True)
    )
    what = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    return Template((_OWN / "page.html").read_text(encoding="utf-8")).substitute(
        title=as_html(f"qredit report: {what}"),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        summary=_summary(runs),
        curves=_curves(runs),
        viewer=_viewer(recorded),
        differences=_differences(runs),
        environment=_environment(runs),
        data=f'{{"runs":[{",".join(data)}]}}',
        version=as_html(__version__),
    )


def as_html(value: Any) -> str:
    """Text by others as HTML: nothing in it is markup, and what cannot be seen is shown."""
    return escape(visible(str(value)))


def as_json(value: Any) -> str:
    """Data as JSON that may stand inside a <script> element, its text made visible."""
    plain = json.dumps(_visible(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return plain.translate(_NOT_IN_JSON)


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _visible(inner) for key, inner in value.items()}
    return [_visible(inner) for inner in value] if isinstance(value, list | tuple) else value


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


# --- sections


def _summary(runs: Sequence[RunData]) -> str:
    parts = [f"<p>{as_html(sentence)}</p>" for sentence in across(runs)]
    if len(runs) > 1:
        parts += [_legend(runs), _table(runs)]
    for run in runs:
        listed = "\n".join(f"<li>{as_html(sentence)}</li>" for sentence in sentences(run))
        parts.append(f"<h3>{as_html(run.name)}</h3>\n<ul>\n{listed}\n</ul>")
    return "\n".join(parts)


def _legend(runs: Sequence[RunData]) -> str:
    items = "\n".join(
        f'<li><svg viewBox="0 0 34 10" aria-hidden="true"><g class="line {look_of(place)}">'
        f'<path d="M0,5L34,5"/></g></svg>{as_html(run.name)}</li>'
        for place, run in enumerate(runs)
    )
    return f'<ul class="legend">\n{items}\n</ul>'


_COLUMNS = ("Run", "Objective", "Steps", "Reward, first", "Reward, last", "Held-out p@1", "p̂, last", "Entropy, last")
_MORE = ("Tokens, last", "ESS, last", "Seconds")


def _table(runs: Sequence[RunData]) -> str:
    rows = [_table_row(run) for run in runs]
    note = (
        '<p class="faint">First and last: mean over a twentieth of the logged steps, at least 5. p̂: power of ten of '
        "the median. Seconds: mean of a micro-batch.</p>"
    )
    return _grid((*_COLUMNS, *_MORE), rows, numeric_from=2) + note


def _table_row(run: RunData) -> list[str]:
    reward, held = ends(run, "reward"), run.held.get("p@1")
    total = sum(seconds(run).values())
    return [
        run.name,
        run.objective,
        str(run.steps),
        "" if reward is None else as_share(run, reward[0].mean),
        "" if reward is None else as_share(run, reward[1].mean),
        "" if held is None else f"{100 * held['value']:.1f} %",
        _end(run, "p_hat/log10_q50", power),
        _end(run, "entropy", "{:.3g}".format),
        _end(run, "completions/mean_length", "{:.1f}".format),
        _end(run, "weights/ess", "{:.2f}".format),
        f"{total:.3g}" if total else "",
    ]


def _end(run: RunData, name: str, show: Callable[[float], str]) -> str:
    found = ends(run, name)
    return "" if found is None else show(found[1].mean)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], numeric_from: int = 10**6) -> str:
    def cell(tag: str, place: int, value: str) -> str:
        kind = ' class="n"' if place >= numeric_from else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{kind}{scope}>{as_html(value)}</{tag}>"

    top = "".join(cell("th", place, name) for place, name in enumerate(head))
    body = "\n".join("<tr>" + "".join(cell("td", n, value) for n, value in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _curves(runs: Sequence[RunData]) -> str:
    figures = [
        f"<figure>\n<h3>{as_html(panel.title)}</h3>\n{draw(panel)}\n<figcaption>{as_html(panel.note)}</figcaption>\n"
        "</figure>"
        for panel in panels(runs)
    ]
    spent = {run.name: found for run in runs if (found := seconds(run))}
    if spent:
        figures.append(_spent(spent))
    if not figures:
        return "<p>No step was logged, so there is nothing to draw.</p>"
    legend = _legend(runs) if len(runs) > 1 else ""
    return legend + '\n<div class="panels">\n' + "\n".join(figures) + "\n</div>" + _decisions(runs)


def _decisions(runs: Sequence[RunData]) -> str:
    rows = [
        [run.name, f"{one['step']:.0f}", _plain(one.get("change", "")), _plain(one.get("reason", ""))]
        for run in runs
        for one in run.decisions
    ]
    return "\n<h3>Decisions</h3>\n" + _grid(("Run", "After step", "Change", "Why"), rows) if rows else ""


def _spent(spent: Mapping[str, Mapping[str, float]]) -> str:
    names = [name for name in PARTS.values() if any(name in parts for parts in spent.values())]
    keys = "\n".join(
        f'<li><svg viewBox="0 0 34 10" aria-hidden="true"><rect class="part p{place}" width="34" height="10"/></svg>'
        f"{name}</li>"
        for place, name in enumerate(names)
    )
    rows = [[run, *(f"{parts[name]:.3g}" if name in parts else "" for name in names)] for run, parts in spent.items()]
    return (
        f'<figure>\n<h3>Where the time goes</h3>\n{bars(spent, "s")}\n<ul class="legend">{keys}</ul>\n'
        f"{_grid(('Run', *(f'{name} (s)' for name in names)), rows, numeric_from=1)}\n"
        "<figcaption>Mean seconds of a micro-batch. Runs from top to bottom as in the table.</figcaption>\n</figure>"
    )


def _viewer(recorded: bool) -> str:
    if not recorded:
        return f'<p id="no-credit">{as_html(_UNRECORDED)}</p>'
    return (
        "<p>A token's coefficient is the number that its log-probability is multiplied by. Blue raises the token's "
        "probability, orange with a dotted line lowers it. The shading of each column is relative to its own largest "
        "coefficient. Each record is the first group of rollouts of a logged step; where another objective stands "
        "beside it, it was computed for these very tokens, and tokens that are not shown, such as a sampled answer "
        "beside the gold one, have no part in it.</p>\n"
        '<div id="viewer"><noscript>The viewer needs JavaScript; the rest of the page does not.</noscript></div>'
    )


def _differences(runs: Sequence[RunData]) -> str:
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    parts = []
    if len(runs) > 1:
        differ = [key for key in keys if len({_said(run.config, key) for run in runs}) > 1]
        rows = [[key, *(_said(run.config, key) for run in runs)] for key in differ]
        parts.append(
            _grid(("Option", *(run.name for run in runs)), rows)
            if rows
            else "<p>All options of these runs are equal.</p>"
        )
    for run in runs:
        own = _grid(("Option", "Value"), [[key, _said(run.config, key)] for key in run.config])
        told = own if run.config else "<p>There is no config.yaml.</p>"
        parts.append(f"<details>\n<summary>All options of {as_html(run.name)}</summary>\n{told}\n</details>")
    return "\n".join(parts)


def _environment(runs: Sequence[RunData]) -> str:
    flat = [_flat(run.record) for run in runs]
    keys = list(dict.fromkeys(key for own in flat for key in own))
    if not keys:
        return "<p>There is no record.json.</p>"
    return _grid(("", *(run.name for run in runs)), [[key, *(own.get(key, "") for own in flat)] for key in keys])


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
    return f"{number(value):g}" if isinstance(value, float) and number(value) is not None else str(value)
