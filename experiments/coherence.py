"""Whether PAFT's gradients are more coherent than GARL's, as the core paper says: part of `make results-paper`.

Both are asked about the same rollouts of the same pocket model, before training and along a run of GARL. What each row
of a group contributes to the gradient is held against what the group's other rows contribute. A quarter of an hour.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from string import Template
from typing import Any

import torch
from page import RUNS, insert, kept, machine_line, percent_cell
from results import COLD, HELD, swapped
from rich.console import Console
from torch import Tensor

from qredit.core.objective import Objective
from qredit.engine.generation import Generation
from qredit.objectives.parsing import parse
from qredit.rollouts.collate import Rows
from qredit.runs.experiment import Variant, collect_facts, load_or_compute, run_variant
from qredit.runs.folder import RunFolder
from qredit.runs.library_logging import silence_libraries
from qredit.runs.options import TrainOptions
from qredit.runs.train import build_trainer
from qredit.runs.warm_start import start_from
from qredit.trl import QreditTrainer

FOLDER, PAGE = RUNS / "coherence", Path("docs/results.md")
TEXT = Path(__file__).with_name("coherence.md.in")
OBJECTIVES = ("garl(q=0.75)", "paft(q=0.75)")
SEEDS = (0, 1, 2)
MOMENTS = (0, 10, 20)  # steps of GARL behind the model whose gradients are compared
STEPS = 80  # of the runs whose rationales are swapped


class _Sampled(Exception):
    """A generation was made, and nothing is to be learned from it."""

    def __init__(self, generation: Generation) -> None:
        super().__init__("sampled")
        self.generation = generation


class _OnlySampled:
    """Takes a step's place and hands out its rollouts."""

    def take(self, model: object, objective: object, generation: Generation, place: object) -> None:
        raise _Sampled(generation)


def sample_groups(options: TrainOptions, folder: Path) -> tuple[QreditTrainer, list[Rows]]:
    """A trainer as `qredit train` makes it, and the groups of its first generation."""
    trainer, _ = build_trainer(options, RunFolder(folder))
    trainer.step = _OnlySampled()  # type: ignore[assignment]
    try:
        trainer.train()
    except _Sampled as made:
        rows = [micro.rows for micro in made.generation.microbatches]
    groups = [part.select((part.batch.group == g).nonzero()[:, 0]) for part in rows for g in part.batch.group.unique()]
    return trainer, groups


def split_gradient(trainer: QreditTrainer, rows: Rows, objective: Objective, spans: Sequence[str]) -> Tensor:
    """What each row adds to the gradient through the tokens of these spans: (rows, parameters)."""
    told = trainer.scorer.score(trainer.model, rows)
    batch = trainer.scorer.attach_scores(rows.batch, told, False)
    counted = torch.stack([getattr(rows.batch, span) for span in spans]).any(0)
    terms = -(objective.evaluate(batch, {}).value * counted * told["logp"]).sum(1)
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    rows_of = [torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True) for term in terms]
    return torch.stack(
        [
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(row, parameters, strict=True)]
            )
            for row in rows_of
        ]
    )


def measure_group(gradients: Tensor) -> dict[str, float] | None:
    """How a group's rows agree; None where fewer than two of them have a gradient.

    `cosine` is the mean over pairs of rows, `kept` is ‖Σ g_m‖/Σ‖g_m‖: 1 where all rows pull one way, and what is left
    of their pulls where they do not.
    """
    norms = gradients.norm(dim=1)
    live = gradients[norms > 1e-9 * norms.max()] if float(norms.max()) > 0 else gradients[:0]
    if len(live) < 2:
        return None
    unit = torch.nn.functional.normalize(live, dim=1)
    pairs = unit @ unit.T
    upper = torch.triu(torch.ones_like(pairs, dtype=torch.bool), 1)
    kept_share = float(live.sum(0).norm() / live.norm(dim=1).sum())
    return {"cosine": float(pairs[upper].mean()), "kept": kept_share, "rows": len(live)}


def compare_gradients(seed: int, steps: int) -> dict[str, Any]:
    """Both objectives' gradients on the same groups, after so many steps of GARL."""
    options = replace(COLD, objective=OBJECTIVES[0], seed=seed, lr=3e-4, save_every=0)
    folder = FOLDER / f"at-{steps}-{seed}"

    def make() -> dict[str, Any]:
        asked = options
        if steps:
            trained = replace(options, steps=steps)
            run_variant(Variant(trained), folder / "trained", replace(HELD, questions=8, k=2), Console(quiet=True))
            asked = start_from(options, folder / "trained" / "run" / "final")
        trainer, groups = sample_groups(asked, folder / "drawn")
        return {
            objective: {
                "+".join(spans): summarize_groups(trainer, groups, parse(objective), spans)
                for spans in (("rationale",), ("answer",), ("rationale", "answer"))
            }
            for objective in OBJECTIVES
        }

    return load_or_compute(
        folder, collect_facts(Variant(options), HELD) | {"what": "gradients", "after": steps}, make, kept(folder)
    )


def summarize_groups(
    trainer: QreditTrainer, groups: Sequence[Rows], objective: Objective, spans: Sequence[str]
) -> dict[str, float]:
    """Means over groups."""
    found = list(filter(None, (measure_group(split_gradient(trainer, g, objective, spans)) for g in groups)))
    return {name: statistics.mean(one[name] for one in found) for name in ("cosine", "kept", "rows")} | {
        "groups": len(found)
    }


def swap_rationales(objective: str, seed: int) -> dict[str, Any]:
    """p@1 after the trained model's own rationales, and after those that it wrote for another question."""
    options = replace(COLD, objective=objective, seed=seed, lr=3e-4, steps=STEPS, save_every=0)
    folder = FOLDER / f"swap-{objective.split('(')[0]}-{seed}"

    def make() -> dict[str, Any]:
        run_variant(Variant(options), folder / "trained", replace(HELD, questions=8, k=2), Console(quiet=True))
        return swapped(options, folder / "trained" / "run" / "final", folder / "asked")

    return load_or_compute(
        folder, collect_facts(Variant(options), HELD) | {"what": "swap", "held": asdict(HELD)}, make, kept(folder)
    )


def write_rows(found: Mapping[int, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """One line for each moment and objective."""
    for steps, seeds in found.items():
        for objective in OBJECTIVES:
            cells = []
            for spans in ("rationale", "answer", "rationale+answer"):
                for name in ("cosine", "kept"):
                    values = [one[objective][spans][name] for one in seeds]
                    cells.append(f"{statistics.mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]")
            rows = statistics.mean(one[objective]["rationale+answer"]["rows"] for one in seeds)
            yield f"| {steps} | `{objective}` | {rows:.1f} | {' | '.join(cells)} |"


def main() -> None:
    """Measure what is missing and write the section."""
    silence_libraries()
    torch.set_num_threads(1)
    gradients = {steps: [compare_gradients(seed, steps) for seed in SEEDS] for steps in MOMENTS}
    swaps = {objective: [swap_rationales(objective, seed) for seed in SEEDS] for objective in OBJECTIVES}
    lines = [
        f"| `{objective}` | {percent_cell([s['own']['value'] for s in seeds])} | "
        f"{percent_cell([s['swapped']['value'] for s in seeds])} |"
        for objective, seeds in swaps.items()
    ]
    insert(
        PAGE,
        "coherence",
        Template(TEXT.read_text()).substitute(
            gradients="\n".join(write_rows(gradients)), swaps="\n".join(lines), machine=machine_line()
        ),
    )


if __name__ == "__main__":
    main()
