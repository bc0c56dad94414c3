"""Measure what a training step costs here and with TRL's GRPOTrainer, at sizes of your choice.

`qredit bench step` times TRL's trainer, our own with each prompt repeated for its rollouts (the ordinary path), and our
own with each prompt computed once, in turns in one process, on the same random model and the same rollouts. Each number
is the median over rounds of their seconds / our seconds. Run it while nothing else runs.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from qredit.cli.parser import Parser, add_options, build_options
from qredit.runs.options import check_minimums, option
from qredit.utils.device import select_device
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.threads import compute_on

if TYPE_CHECKING:
    from qredit.trl.bench.timing import TimingRow


@dataclass(frozen=True)
class BenchOptions:
    """What is measured."""

    sizes: str = option("16/48/16,128/128/32,512/64/16,1024/128/32", "PROMPT/COMPLETION/ROLLOUTS, separated by commas")
    objectives: str = option("grpo,garl,paft", "of grpo, garl and paft")
    phases: str = option("sample,update,step", "of sample, score, update and step (sample and update)")
    runs: int = option(3, "rounds, after one that warms up")
    memory: bool = option(False, "measure the peak memory of an update too, each arm in a process of its own")
    threads: int = option(2, "threads")
    cpu: bool = option(False, "use the CPU, also where there is an accelerator")

    def __post_init__(self) -> None:
        check_minimums(self, {"runs": 1, "threads": 1})
        most = max(os.cpu_count() or 1, 2)
        if self.threads > most:
            raise QreditError(f"threads must be at most {most} on this machine, got {self.threads}")
        if not split_commas(self.sizes):
            raise QreditError(f"sizes must name at least one PROMPT/COMPLETION/ROLLOUTS, got '{self.sizes}'")
        from qredit.trl.bench.size import Size
        from qredit.trl.bench.timing import OBJECTIVES, PHASES

        for name, known in (("objectives", OBJECTIVES), ("phases", PHASES)):
            text = getattr(self, name)
            if not split_commas(text):
                raise QreditError(f"{name} must name at least one of {', '.join(known)}, got '{text}'")
            for given in split_commas(text):
                if given not in known:
                    raise unknown_name_error(name[:-1], given, known)
        for size in split_commas(self.sizes):
            Size.parse(size)


def split_commas(text: str) -> list[str]:
    """The parts between commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def add_arguments(parser: Parser) -> None:
    """What to measure, and its options."""
    parser.add_argument("what", choices=("step",), help="what to measure")
    add_options(parser, BenchOptions, "options")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Measure every size and show the table.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    given.pop("what")
    options = build_options(BenchOptions, [("the command line", given)])
    import torch

    from qredit.trl.bench.setup import Setup
    from qredit.trl.bench.size import ModelShape, Size
    from qredit.trl.bench.timing import compare

    cpu = select_device(options.cpu).type == "cpu"
    rows: list[TimingRow] = []
    with compute_on(options.threads), progress.status("starting") as status:
        for text in split_commas(options.sizes):
            rows += compare(
                Size.parse(text),
                split_commas(options.objectives),
                split_commas(options.phases),
                options.runs,
                options.memory,
                ModelShape(),
                Setup(cpu=cpu, half=not cpu),
                lambda what: status.update(what),
            )
    _show(rows, out)
    machine = f"{options.threads} threads" if cpu else torch.cuda.get_device_name()
    out.print(f"{options.runs} rounds in turns, medians of their ratios; torch {torch.__version__}, {machine}")
    return {"rows": [asdict(row) for row in rows], "torch": torch.__version__, "machine": machine}


def _show(rows: "Sequence[TimingRow]", out: Console) -> None:
    title = "times as fast as TRL and as the ordinary path; seconds; tokens/s; share of peak FLOP/s; memory, of TRL's"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("size", "phase", "objective", "TRL", "ordinary", "s", "tok/s", "peak", "mem"):
        table.add_column(name, justify="left" if name in ("phase", "objective") else "right", no_wrap=True)
    pairs: dict[tuple[str, str, str], dict[str, TimingRow]] = {}
    for row in rows:
        pairs.setdefault((f"{row.prompt}/{row.completion}/{row.m}", row.phase, row.objective), {})[row.against] = row
    for key, against in pairs.items():
        row = against["trl"]
        table.add_row(
            *key,
            *(f"{against[name].ratio:.2f}" for name in ("trl", "ordinary")),
            f"{row.seconds:.2f}",
            f"{row.tokens_per_second:,.0f}",
            "" if row.roofline is None else f"{100 * row.roofline:.0f} %",
            "" if row.peak_memory_ratio is None else f"{row.peak_memory_ratio:.2f}",
        )
    out.print(table)
