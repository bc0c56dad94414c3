"""Rules of selection against the majority, and rules of decoding against plain samples: part of `make results-data`.

The plan: the warm pocket models of three tasks as they come, nothing trained. 128 held-out questions with 16 samples
each, three seeds of sampling. Every rule chooses among the same samples, the first 4 and all 16 of them. Expected,
after a look at 6 and at 32 questions: votes weighted by likelihood gain a little over the majority, for wrong hops make
unlikely rationales; best-of-N by the answer's likelihood loses, for a wrong answer is as sure as a right one.
SmolLM2-135M-Instruct judges 24 questions of pocket-hotpot with 4 samples each: it is expected at chance. The thresholds
of `by_difficulty` were set once, by eye, and not tuned.

Samples are kept in runs/results/selection, small results in experiments/kept/selection. `--minutes` begins no part
after so many, `--write` writes the table of what is there and asks no model.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from string import Template
from typing import Any

from page import (
    RUNS,
    gap_cell,
    insert,
    kept,
    machine_line,
    paired_difference,
    percent_cell,
    range_cell,
    read_small_result,
)
from rich.console import Console
from run_budget import parse_budget, run_jobs

from qredit.cli.eval_command import run as run_eval
from qredit.evaluation.metrics import QuestionResult, compute_question_metrics
from qredit.rewards.judge.endpoint import show_prompt
from qredit.runs.experiment import load_or_compute
from qredit.runs.load import load_examples
from qredit.runs.options import TrainOptions
from qredit.selection.outcome import evaluate_selection, read_samples
from qredit.selection.parsing import parse_selection

FOLDER, PAGE = RUNS / "selection", Path("docs/results.md")
TEXT = Path(__file__).with_name("selection.md.in")
TASKS, SEEDS = ("pocket-hotpot", "pocket-musique", "pocket-finqa"), (0, 1, 2)
QUESTIONS, SAMPLES, FIRST = 128, 16, (4, 16)
JUDGED = 24
SCORER = "exact_match"
RULES = (
    "majority()",
    "weighted_majority(mean_logp())",
    "weighted_majority(answer_logp())",
    "best_of(mean_logp())",
    "best_of(answer_logp())",
)
JUDGES = ("pairwise(local('smollm2'))", "gen_select(local('smollm2'))")
DRAWN = ("budget_forcing()", "by_difficulty(pilot=4, alpha=0.75, beta=0.4, gamma=0.5)")


@dataclass(frozen=True)
class Part:
    """Some arms on one task with one seed: the unit that is kept.

    Attributes:
        kind: of arms: rules, judges or the text of a rule of decoding.
    """

    kind: str
    task: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return FOLDER / "".join(c for c in f"{self.task}-{self.kind}-{self.seed}" if c.isalnum() or c in "-_.")


def list_parts() -> list[Part]:
    """All of them; whole seeds first."""
    return [
        *(Part("rules", task, seed) for seed in SEEDS for task in TASKS),
        *(Part(rule, TASKS[0], seed) for seed in SEEDS for rule in DRAWN),
        *(Part("judges", TASKS[0], seed) for seed in SEEDS),
    ]


def ask(part: Part, decode: str | None = None) -> tuple[list[QuestionResult], Mapping[str, Any]]:
    """The samples of a part's task and seed, and what `qredit eval` says of them; they are sampled once.

    Args:
        part: says task and seed.
        decode: rule of decoding; its samples are given, not the plain ones beside it.
    """
    name = f"{part.task}-{part.seed}" + ("" if decode is None else f"-{decode.partition('(')[0]}")
    folder = FOLDER / "samples" / name
    plain, drawn, record = folder / "samples.jsonl", folder / "samples-decode.jsonl", folder / "eval.json"
    if not record.is_file():
        for left in (plain, drawn):
            left.unlink(missing_ok=True)  # of a call that was stopped
        asked = {"task": part.task, "style": "warm", "k": SAMPLES, "limit": QUESTIONS, "seed": part.seed, "cpu": True}
        given = asked | {"samples": str(plain)} | ({} if decode is None else {"decode": decode})
        record.write_text(json.dumps(run_eval(given, Console(quiet=True), Console(quiet=True))))
    lines = (plain if decode is None else drawn).read_text(encoding="utf-8").splitlines()
    return [read_result(json.loads(line)) for line in lines], json.loads(record.read_text())


def read_result(line: Mapping[str, Any]) -> QuestionResult:
    """A line of a samples file, as it was written."""
    known = {field.name: line[field.name] for field in fields(QuestionResult)}
    scores = {name: tuple(values) for name, values in line["scores"].items()}
    listed = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return QuestionResult(**{**known, **listed, "scores": scores})


def cut(result: QuestionResult, k: int) -> QuestionResult:
    """The first k samples of a question."""
    listed = ("predictions", "rationales", "mean_logp", "answer_logp")
    return replace(
        result,
        **{name: getattr(result, name)[:k] for name in listed},
        scores={name: values[:k] for name, values in result.scores.items()},
    )


def measure_rules(part: Part, rules: Sequence[str], sizes: Sequence[int], count: int) -> dict[str, Any]:
    """Success on each question, by rule and number of samples; what is told of a judge beside it.

    Args:
        part: says task and seed.
        rules: that choose.
        sizes: how many of the samples they see.
        count: of questions.
    """
    samples = ask(part)[0][:count]
    shown = {one.id: show_prompt(one.prompt) for one in load_examples(make_options(part), "test", QUESTIONS)}
    questions = [shown[one.id] for one in samples]
    found: dict[str, Any] = {}
    for k in sizes:
        few = [cut(one, k) for one in samples]
        seen = read_samples(few, questions, SCORER)
        for text in rules:
            outcome = evaluate_selection(text, parse_selection(text), seen, part.seed)
            judge = None if outcome.judge is None else asdict(outcome.judge)
            found[f"{text} {k}"] = {"each": list(outcome.each), "judge": judge}
        found[f"p@k {k}"] = {"each": [compute_question_metrics(one, SCORER, k)[f"p@{k}"] for one in few]}
    return found


def measure_decoding(part: Part) -> dict[str, Any]:
    """p@1 and m@k of each question, and tokens for a sample, plainly and by the rule."""
    drawn, told = ask(part, part.kind)
    plain, _ = ask(part)  # drawn with the same seed, as those beside the rule were
    return {
        name: {"each": _each(samples), "tokens": where["tokens_per_sample"]}
        for name, samples, where in (("plain", plain, told), ("drawn", drawn, told["decode"]))
    }


def _each(samples: Sequence[QuestionResult]) -> dict[str, list[float]]:
    told = [compute_question_metrics(one, SCORER, SAMPLES) for one in samples]
    return {name: [one[name] for one in told] for name in ("p@1", f"m@{SAMPLES}")}


def make_options(part: Part) -> TrainOptions:
    """What is asked."""
    return TrainOptions(task=part.task, style="warm", cpu=True)


MEASURES: Mapping[str, Callable[[Part], dict[str, Any]]] = {
    "rules": lambda part: measure_rules(part, RULES, FIRST, QUESTIONS),
    "judges": lambda part: measure_rules(part, ("majority()", *JUDGES), FIRST[:1], JUDGED),
}


def run_part(part: Part, make_anew: bool) -> dict[str, Any] | None:
    """What was measured; None where it is not there and is not to be made.

    Args:
        part: of the plan.
        make_anew: whether a missing one is made.
    """
    if not make_anew:
        return read_small_result(kept(part.folder))
    part.folder.mkdir(parents=True, exist_ok=True)
    facts = {**asdict(part), "questions": QUESTIONS, "samples": SAMPLES}
    return load_or_compute(
        part.folder, facts, lambda: MEASURES.get(part.kind, measure_decoding)(part), kept(part.folder)
    )


Found = Mapping[Part, Mapping[str, Any]]


def write_rules(found: Found) -> str:
    """One line for each task, number of samples and rule: mean and range over seeds, and the paired difference."""
    lines = []
    for task in TASKS:
        own = [result for part, result in found.items() if (part.kind, part.task) == ("rules", task)]
        for k in FIRST if own else ():
            for text in (*RULES, "p@k"):
                lines.append(f"| {task} | {k} | {_rule_cells(own, text, k)} |")
    return "\n".join(lines)


def _rule_cells(own: Sequence[Mapping[str, Any]], text: str, k: int) -> str:
    each = [result[f"{text} {k}"]["each"] for result in own]
    success = percent_cell([sum(values) / len(values) for values in each])
    name = "one of them right" if text == "p@k" else f"`{text}`"
    if text in ("majority()", "p@k"):
        return f"{name} | {success} |"
    common = [{"each": {"p@1": result[f"majority() {k}"]["each"]}} for result in own]
    return f"{name} | {success} | {gap_cell(paired_difference([{'each': {'p@1': one}} for one in each], common))}"


def write_judges(found: Found) -> str:
    """One line for each rule with a judge: success, difference, how often order decided, and who won otherwise."""
    own = [result for part, result in found.items() if part.kind == "judges"]
    lines = []
    for text in JUDGES if own else ():
        told = [result[f"{text} {FIRST[0]}"]["judge"] for result in own]
        games, swayed = (sum(one[name] for one in told) for name in ("games", "swayed"))
        right = [100 * one["told"]["value"] for one in told if one["told"] is not None]
        won = range_cell(right, 0) if right else "–"
        lines.append(f"| {_rule_cells(own, text, FIRST[0])} | {games} | {100 * swayed / max(games, 1):.0f} | {won} |")
    return "\n".join(lines)


def write_drawn(found: Found) -> str:
    """One line for each rule of decoding: p@1 and m@k with their differences from plain samples, and tokens."""
    lines = []
    for rule in DRAWN:
        own = [result for part, result in found.items() if part.kind == rule]
        if not own:
            continue
        cells = []
        for name in ("p@1", f"m@{SAMPLES}"):
            drawn, plain = ([{"each": {"p@1": one[way]["each"][name]}} for one in own] for way in ("drawn", "plain"))
            values = [one["each"]["p@1"] for one in drawn]
            cells += [
                percent_cell([sum(each) / len(each) for each in values]),
                gap_cell(paired_difference(drawn, plain)),
            ]
        cells += [range_cell([one[way]["tokens"] for one in own], 1) for way in ("drawn", "plain")]
        lines.append(f"| `{rule}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_jobs(
        list_parts(),
        lambda part: run_part(part, not budget.is_spent),
        lambda part, _: f"{part.task}, {part.kind}, seed {part.seed}",
        Console(highlight=False),
    )
    if found:
        whole = Template(TEXT.read_text()).safe_substitute(
            rules=write_rules(found), judges=write_judges(found), drawn=write_drawn(found), machine=machine_line()
        )
        insert(PAGE, "selection", whole)


if __name__ == "__main__":
    main()
