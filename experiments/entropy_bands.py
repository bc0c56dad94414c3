"""Is entropy held at a target, and what does it cost? Part of `make results-data`.

The plan, written before the first of these runs. pocket-hotpot behind warm prompts, where GRPO loses entropy: a run of
`STEPS` steps of 8 questions × 16 rollouts at the default rate. `hold_entropy` with the released temperatures and a
strength of `MOST`, ten times the released one, which 128 rollouts would not show. Targets: one below the entropy of
the model at the start (0.18), one near it, one far above; beside them the same loss without the rule. The band is
±10 %. Counted is the second half of a run, which leaves the first to get there: how many of its steps lie in the band,
and the mean over it. Entropy is what every run logs, the mean over the sampled tokens of a step, those that were put
in among them. Expected: held, as long as some groups are mixed, for a group that is all right gives no good rollout.
Success is held-out p@1. A try of 60 steps at a target of 0.3, before the plan, reached it in step 48. Added after the
first run: running means over `WINDOW` steps, since the eight questions of a step alone move its entropy by more than
the band. Also seen while trying: seed 0 at a target of 0.2, stopped at step 94, went past it to 0.26 when all rollouts
were right, and stayed there with nothing to put in. On pocket-finqa, warm, a target of 0.3 was not reached: in 22 steps
entropy fell from 0.16 to 0.03, though up to 26 rollouts of 128 were hot ones.

Runs are kept in runs/results/entropy-bands, their small results in experiments/kept/entropy-bands. `--minutes` begins
no run after so many, `--write` writes the table of what is there and trains nothing.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

from page import RUNS, insert, kept, machine_line, percent_cell, range_cell, read_small_result
from rich.console import Console
from run_budget import parse_budget, run_jobs

from qredit.runs.experiment import EvalSpec, evaluate_model, hash_initial_weights, load_or_compute, read_curves
from qredit.runs.options import TrainOptions
from qredit.runs.train import train

FOLDER, PAGE = RUNS / "entropy-bands", Path("docs/results.md")
TEXT = Path(__file__).with_name("entropy_bands.md.in")
SEEDS, STEPS, MOST, BAND, WINDOW = (0, 1, 2), 100, 0.25, 0.1, 10
HELD = EvalSpec(questions=64, k=8)
BARE = "dapo(epsilon_high=0.2, epsilon_std=1e-06)"
"""The loss of `aepo()` without what a rule draws."""


@dataclass(frozen=True)
class Arm:
    """A target, or None: no rule."""

    target: float | None

    @property
    def name(self) -> str:
        """As a folder is called."""
        return "bare" if self.target is None else f"{self.target:g}"

    def options(self, seed: int) -> TrainOptions:
        """One run."""
        held = self.target is not None
        return TrainOptions(
            style="warm",
            steps=STEPS,
            save_every=0,
            cpu=True,
            seed=seed,
            objective="aepo()" if held else BARE,
            drawing=f"hold_entropy(target={self.target}, most={MOST})" if held else None,
        )


ARMS = tuple(map(Arm, (None, 0.12, 0.2, 0.3)))


def run_arm(arm: Arm, seed: int, train_anew: bool) -> dict[str, Any] | None:
    """One run; None where it is not there and none is to be made.

    Args:
        arm: what is held.
        seed: of the run.
        train_anew: whether a missing run is made.
    """
    folder = FOLDER / f"{arm.name}-{seed}"
    if not train_anew:
        return read_small_result(kept(folder))
    options = arm.options(seed)

    def make() -> dict[str, Any]:
        final = str(train(options, folder / "run", Console(quiet=True)).final)
        metrics = folder / "run" / "metrics.jsonl"
        return {
            "p@1": evaluate_model(options, final, HELD)["p@1"]["value"],
            "entropy": [round(float(value or 0), 4) for value in read_curves(metrics)["entropy"]],
            "reward": [round(float(value or 0), 4) for value in read_curves(metrics)["curve"]],
            "rows": read_rows(metrics),
        }

    facts = {"train": options.changed(), "weights": hash_initial_weights(options), "held": asdict(HELD)}
    return load_or_compute(folder, facts, make, kept(folder))


def read_rows(metrics: Path) -> list[int]:
    """How many rollouts each step replaced; empty without a rule."""
    entries = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [int(entry["drawing/rows"]) for entry in entries if "drawing/rows" in entry]


def late(values: Sequence[float]) -> Sequence[float]:
    """The second half of a run."""
    return values[len(values) // 2 :]


def share_in_band(entropy: Sequence[float], target: float, window: int) -> float:
    """The share of running means within the band, over windows that lie in the second half.

    Args:
        entropy: of each step.
        target: middle of the band.
        window: steps of a mean; 1 counts the steps themselves.
    """
    counted = late(entropy)
    means = [statistics.mean(counted[at : at + window]) for at in range(len(counted) - window + 1)]
    return statistics.mean(abs(value - target) <= BAND * target for value in means)


def write_table(found: Mapping[tuple[Arm, int], Mapping[str, Any]]) -> str:
    """One line for each target: mean and range over seeds."""
    lines = []
    for arm in ARMS:
        own = [result for (one, _), result in found.items() if one == arm]
        if not own:
            continue
        target, held = arm.target, ["—", "—"]
        if target is not None:
            held = [
                percent_cell([share_in_band(one["entropy"], target, window) for one in own]) for window in (1, WINDOW)
            ]
        cells = [
            "none" if target is None else f"{target:g}",
            str(len(own)),
            range_cell([statistics.mean(late(one["entropy"])) for one in own], 3),
            *held,
            range_cell([statistics.mean(late(one["rows"])) for one in own], 1) if target is not None else "—",
            percent_cell([statistics.mean(late(one["reward"])) for one in own]),
            percent_cell([one["p@1"] for one in own]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_jobs(
        [(arm, seed) for seed in SEEDS for arm in ARMS],
        lambda job: run_arm(*job, not budget.is_spent),
        lambda job, result: f"{job[0].name} seed {job[1]}: {statistics.mean(late(result['entropy'])):.3f} nats",
        Console(highlight=False),
    )
    if found:
        text = Template(TEXT.read_text()).safe_substitute(rows=write_table(found), machine=machine_line())
        insert(PAGE, "entropy bands", text)


if __name__ == "__main__":
    main()
