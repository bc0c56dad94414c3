"""The parts of a run in their order, each with seconds of its own; one that fails leaves the others their turn."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpu_run.gradients import check_gradients
from gpu_run.pairs import measure_pair
from gpu_run.plan import Plan
from gpu_run.pocket_steps import take_pocket_steps
from gpu_run.profiled import profile_update
from gpu_run.rates import measure_rates
from gpu_run.results import Results
from gpu_run.train_steps import time_train_steps

Measure = Callable[[Plan, float], Iterator[Mapping[str, Any]]]


@dataclass(frozen=True)
class Section:
    """A part of a run.

    Attributes:
        name: under which its findings are kept.
        seconds: what it may take.
        measure: (plan, when it is to end by `time.monotonic`) → findings, each as soon as it is known.
    """

    name: str
    seconds: float
    measure: Measure


def list_sections(plan: Plan) -> list[Section]:
    """Checks first, then what the goals are about, then what explains it."""
    of_pairs = [Section(pair.name, pair.seconds, partial(measure, pair)) for pair in plan.pairs]
    named = {
        "matmul": measure_rates,
        "gradients": check_gradients,
        "pocket": take_pocket_steps,
        "train": time_train_steps,
        "profile": profile_update,
    }
    first, last = (
        [Section(name, plan.seconds[name], named[name]) for name in names]
        for names in (("matmul", "gradients", "pocket"), ("train", "profile"))
    )
    return [*first, *of_pairs, *last]


def measure(pair: Any, plan: Plan, end: float) -> Iterator[Mapping[str, Any]]:
    """`measure_pair` with the pair first."""
    return measure_pair(plan, pair, end)


def run_sections(plan: Plan, results: Results, end: float, told: Callable[[str], None]) -> None:
    """Run every section for which there is time, and keep what it finds as it finds it.

    Args:
        plan: what is measured.
        results: receives the findings.
        end: of the whole run, by `time.monotonic`.
        told: shown what happens.
    """
    for section in list_sections(plan):
        start = time.monotonic()
        if end - start < section.seconds / 2:
            results.put(section.name, {"skipped": f"{end - start:.0f} s were left"})
            told(f"{section.name}: skipped, {end - start:.0f} s are left")
            continue
        try:
            for found in section.measure(plan, min(start + section.seconds, end)):
                results.put(section.name, found)
        except Exception as error:  # whatever a card does with one part, the others are worth having
            results.put(section.name, {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()})
            told(f"{section.name}: {type(error).__name__}: {error}")
        results.put(section.name, {"took": time.monotonic() - start})
        told(f"{section.name}: {time.monotonic() - start:.0f} s")
