"""What a training step costs: the numbers and plots of docs/performance.md, `make performance`.

Measurements are kept in runs/performance; delete a file there to make it anew. About 25 minutes on two cores; run it
while nothing else runs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import numpy
import torch
from page import insert

from qredit.runs.library_logging import silence_libraries
from qredit.trl.bench.arms import make
from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import ModelShape, Size
from qredit.trl.bench.timing import rollouts_for, time_in_turns

FOLDER, PAGE, PICTURE = Path("runs/performance"), Path("docs/performance.md"), Path("docs/performance.png")
TEXT = Path(__file__).with_name("performance.md.in")
Row = Mapping[str, Any]
SIZES = {"16/48/16": 5, "128/128/32": 9, "512/64/16": 5, "1024/128/32": 3}  # rounds
PROMPTS, ROLLOUTS, COMPLETION, ROUNDS = (64, 512, 1024), (2, 4, 8, 16, 32), 64, 3


def kept(name: str, make_it: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A measurement, from its file if it is there."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        found = make_it()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def step(size: str, rounds: int) -> dict[str, Any]:
    """`qredit bench step` at one size, with memory."""
    words = ["bench", "step", "--sizes", size, "--runs", str(rounds), "--memory", "true", "--cpu", "--json", "--quiet"]
    ran = subprocess.run([sys.executable, "-m", "qredit", *words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def sweep() -> dict[str, Any]:
    """Seconds of an update with GRPO, prompts shared and repeated, over prompt lengths and group sizes."""
    rows = []
    for prompt in PROMPTS:
        for m in ROLLOUTS:
            size = Size(prompt, COMPLETION, m)
            names, shape = ("qredit", "ordinary"), ModelShape()
            arms = {(name, "grpo"): make(name, "grpo()", size, shape, Setup()) for name in names}
            rollouts = rollouts_for(arms["qredit", "grpo"], size, shape)
            seconds = time_in_turns(arms, ("update",), rollouts, ROUNDS + 1, lambda what: None)
            # The first round warms up.
            found = {name: statistics.median(spent["update"][1:]) for (name, _), spent in seconds.items()}
            rows.append({"prompt": prompt, "m": m, **found})
    return {"rows": rows}


def fit(rows: Sequence[Row], tokens: Callable[[Mapping[str, Any]], int], name: str) -> tuple[float, float]:
    """Milliseconds a token through the origin, weighted alike on a log scale, and R² of log seconds."""
    x = numpy.log([tokens(row) for row in rows])
    y = numpy.log([row[name] for row in rows])
    offset = float((y - x).mean())
    residual = y - x - offset
    return 1000 * float(numpy.exp(offset)), 1 - float((residual**2).sum() / ((y - y.mean()) ** 2).sum())


def shared_tokens(row: Row) -> int:
    """P + M·C."""
    return int(row["prompt"] + row["m"] * COMPLETION)


def repeated_tokens(row: Row) -> int:
    """M·(P + C)."""
    return int(row["m"] * (row["prompt"] + COMPLETION))


def plot(rows: Sequence[Row]) -> None:
    """Seconds against M, and against the tokens that each path computes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.4), dpi=140)
    colours = pyplot.get_cmap("viridis")
    for number, prompt in enumerate(PROMPTS):
        own = [row for row in rows if row["prompt"] == prompt]
        colour = colours(number / len(PROMPTS))
        look = {"color": colour, "marker": "o"}
        rollouts, tokens = [row["m"] for row in own], [shared_tokens(row) for row in own]
        left.plot(rollouts, [row["ordinary"] for row in own], "--", label=f"{prompt}, repeated", **look)
        left.plot(rollouts, [row["qredit"] for row in own], "-", label=f"{prompt}, shared", **look)
        right.plot(tokens, [row["qredit"] for row in own], linestyle="", label=f"prompt {prompt}", **look)
    per_token, _ = fit(rows, shared_tokens, "qredit")
    ends = [min(map(shared_tokens, rows)), max(map(shared_tokens, rows))]
    right.plot(ends, [per_token * end / 1000 for end in ends], "k-", linewidth=1, label=f"{per_token:.2f} ms a token")
    left.set(xlabel="rollouts M", ylabel="seconds of an update", xscale="log", yscale="log", title="against M")
    right.set(xlabel="P + M·C, tokens", xscale="log", yscale="log", title="prompt shared: against P + M·C")
    for axes, ticks in ((left, ROLLOUTS), (right, (200, 500, 1000, 2000, 3000))):
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        seconds = [tick for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if tick < axes.get_ylim()[1]]
        axes.set_yticks(seconds, [f"{tick:g}" for tick in seconds])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.25, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PICTURE)
    pyplot.close(figure)


def table(rows: Sequence[Row]) -> str:
    """One line for each size, phase and objective."""
    columns = ["prompt/completion/M", "phase", "objective", "× TRL", "× ordinary", "seconds", "tokens/s"]
    columns += ["of peak FLOP/s", "memory, of TRL's"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    pairs: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        size = f"{row['prompt']}/{row['completion']}/{row['m']}"
        pairs.setdefault((size, row["phase"], row["objective"]), {})[row["against"]] = row
    for key, against in pairs.items():
        ours = against["trl"]
        ratios = [f"{r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in (against["trl"], against["ordinary"])]
        roofline = "" if ours["roofline"] is None else f"{100 * ours['roofline']:.0f} %"
        memory = "" if key[1] != "update" or ours["peak_memory_ratio"] is None else f"{ours['peak_memory_ratio']:.2f}"
        cells = [*key, *ratios, f"{ours['seconds']:.2f}", f"{ours['tokens_per_second']:,.0f}", roofline, memory]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def paft_against_garl(rows: Sequence[Row]) -> str:
    """How much faster PAFT's update is than GARL's, size by size."""
    own = [row for row in rows if row["against"] == "garl" and row["phase"] == "update"]
    return ", ".join(f"{row['ratio']:.2f} at {row['prompt']}/{row['completion']}/{row['m']}" for row in own)


def main() -> None:
    """Measure what is missing and write the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    torch.set_num_threads(2)
    measured = [kept(f"step-{size.replace('/', '-')}", partial(step, size, n)) for size, n in SIZES.items()]
    rows = [row for found in measured for row in found["rows"]]
    swept = kept("sweep", sweep)["rows"]
    plot(swept)
    (shared, shared_fit), (repeated, repeated_fit) = (
        fit(swept, tokens, name) for tokens, name in ((shared_tokens, "qredit"), (repeated_tokens, "ordinary"))
    )
    text = Template(TEXT.read_text()).safe_substitute(
        machine=f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, 2 threads, float32",
        table=table(rows),
        paft=paft_against_garl(rows),
        completion=COMPLETION,
        shared=f"{shared:.2f}",
        shared_fit=f"{shared_fit:.3f}",
        repeated=f"{repeated:.2f}",
        repeated_fit=f"{repeated_fit:.3f}",
    )
    insert(PAGE, "step", text)


if __name__ == "__main__":
    main()
