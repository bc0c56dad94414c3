"""Credit rules side by side on the pocket model, cold and warm: part of `make results`.

Every run is kept in runs/results/compare, its small result in experiments/kept/compare. About half an hour from scratch
on two cores.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from string import Template

from page import KEPT, insert, machine_line
from rich.console import Console

from qredit.runs.compare import ComparisonSettings, ObjectiveResults, compare_objectives, plot_comparison, steps_to
from qredit.runs.library_logging import silence_libraries

FOLDER, PAGE = Path("runs/results/compare"), Path("docs/results.md")
TEXT = Path(__file__).with_name("credit_rules.md.in")
OBJECTIVES = (
    *("grpo()", "dr_grpo(length=40)", "dapo()", "gspo()", "cispo()", "maxrl()", "pass_at_k(k=4)"),
    *("kl_cov()", "steer()", "tempo()", "llds(kl=0.0)", "dapo() | entropy_bonus(0.01)"),
    *("garl(q=0.75)", "garl(q=0.75) | scale_by_entropy_change()", "paft(q=0.75)"),
)
COMPARISONS = {
    "warm": ComparisonSettings(style="warm", iterations=2),
    "cold": ComparisonSettings(style="cold", steps=40),
}


def told(row: ObjectiveResults, of_grpo: ObjectiveResults) -> str:
    """What a method's page says of its runs."""
    parts = [f"p@1 {row.cell('p@1')} %", f"p@16 {row.cell('p@16')} %", f"entropy {row.cell('entropy')}"]
    parts += [f"length {row.cell('length')}", f"generations to 90 %: {generations_to(row)}"]
    grpo = f"p@1 {of_grpo.cell('p@1')} %, p@16 {of_grpo.cell('p@16')} %, entropy {of_grpo.cell('entropy')}"
    return f"{', '.join(parts)}. GRPO: {grpo} (pocket-hotpot, three seeds, [docs/results.md](../results.md))"


def generations_to(row: ObjectiveResults, share: float = 0.9) -> str:
    """How many generations each seed needed until the mean success of five was `share`, as the table shows it."""
    ends = [steps_to(curve, share) for curve in row.curves["success"]]
    known = [end for end in ends if end is not None]
    if not known:
        return "never"
    some = "" if len(known) == len(ends) else f" ({len(known)} of {len(ends)})"
    return f"{statistics.mean(known):.0f} [{min(known)}, {max(known)}]{some}"


def table(rows: Sequence[ObjectiveResults]) -> str:
    """One line for each objective."""
    lines = []
    for row in rows:
        cells = [row.cell("p@1"), row.cell("p@16"), generations_to(row), row.cell("entropy"), row.cell("length")]
        name = row.objective.replace("|", "\\|")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, draw the figures and write the section."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    found = {}
    for kind, settings in COMPARISONS.items():
        rows = compare_objectives(
            OBJECTIVES, settings, FOLDER / kind, Console(highlight=False), kept=KEPT / "compare" / kind
        )
        plot_comparison(rows, Path(f"docs/compare-{kind}.png"), f"pocket-hotpot, {kind} prompts, three seeds")
        kept = [{"objective": row.objective, "told": told(row, rows[0])} for row in rows if row is not rows[0]]
        (FOLDER / f"{kind}.json").write_text(json.dumps({"rows": kept}))
        found[kind] = table(rows)
    machine = machine_line()
    insert(PAGE, "credit rules", Template(TEXT.read_text()).safe_substitute(found, machine=machine))


if __name__ == "__main__":
    main()
