"""Steps that a cold pocket transformer needs to escape, against its measured p0: part of `make results`.

The open loop of examples/loop.py, stopped at the step where half of the sampled answers are right (mean of five steps).
Plain SGD takes the estimator as it is, without the factor 1/M^q, at one learning rate for every q: the setting of the
theorem. Adam is what runs use. A run that does not escape within its budget is right-censored; once an objective is
censored at two successive coldnesses, colder models are not run and count as censored too.
"""

import argparse
import csv
import itertools
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import torch
from page import insert, kept
from pocket_models.measure import draws
from rich.console import Console
from torch import Tensor

from qredit import pocket, tasks
from qredit.core.objective import Objective
from qredit.objectives.parsing import parse
from qredit.pocket.models import LEVELS
from qredit.rollouts.collate import choose_tails, collate
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.runs.experiment import hash_weights, load_or_compute
from qredit.runs.library_logging import silence_libraries
from qredit.runs.load import load_model, load_tokenizer
from qredit.runs.parallel import run_parallel
from qredit.samplers.transformers import sample
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.patch_forward import score
from qredit.shared_prefix.share import share_prefix
from qredit.utils.seed import derive_seed

FOLDER = Path("runs/results/escape")
PAGE, PICTURE, TABLE = Path("docs/theory.md"), Path("docs/theory/pocket.png"), Path("docs/theory/pocket.csv")
TEXT = Path(__file__).with_name("escape_time.md.in")
COMMITMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
OBJECTIVES = ("grpo()", *(f"garl(q={q}, normalize=False)" for q in COMMITMENTS))
RATE = 3e-4
SMALL_GRADIENT = {"grpo()": 3e-3, OBJECTIVES[1]: 3e-3, OBJECTIVES[2]: 1e-3, OBJECTIVES[3]: 1e-3}
RATES: Mapping[str, Mapping[str, float]] = {"sgd": SMALL_GRADIENT, "adam": {}}
STEPS = {"sgd": 200, "adam": 120}
SEEDS = (0, 1)
QUESTIONS, M, BUDGET = 4, 16, TokenBudget(thinking=32, answer=8)
WINDOW, LEVELS_PAST_CENSORING = 5, 2
OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class Chain:
    """One objective, optimiser and seed, over the base models from the warmest to the coldest."""

    objective: str
    optimizer: str
    seed: int

    @property
    def rate(self) -> float:
        return RATES[self.optimizer].get(self.objective, RATE)


def chains() -> list[Chain]:
    """Every chain; those of one seed stand together."""
    return [Chain(text, name, seed) for seed in SEEDS for name in OPTIMIZERS for text in OBJECTIVES]


def run_chain(chain: Chain, folder: Path) -> list[dict[str, Any]]:
    """One result per base model: level, steps to a success of one half and of one quarter (None is censored), curve."""
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for level in LEVELS:
        if _gave_up(found):
            found.append({"level": level, "half": None, "quarter": None, "curve": []})
            continue
        told = {**asdict(chain), "rate": chain.rate, "level": level, "steps": STEPS[chain.optimizer], "m": M}
        told |= {"questions": QUESTIONS, "weights": hash_weights(pocket.get_model_path(f"dial-{level}"))}
        name = "-".join((chain.optimizer, _plain(chain.objective), f"dial{level}", str(chain.seed)))
        found.append(load_or_compute(folder / name, told, partial(_result, chain, level), kept(folder / name)))
    return found


def _gave_up(found: Sequence[Mapping[str, Any]]) -> bool:
    last = found[-LEVELS_PAST_CENSORING:]
    return len(last) == LEVELS_PAST_CENSORING and all(result["half"] is None for result in last)


def _plain(text: str) -> str:
    return "".join(c for c in text.split(",")[0].replace("=", "") if c.isalnum() or c == ".")


def _result(chain: Chain, level: int) -> dict[str, Any]:
    curve = list(_until_half(successes(chain, level)))
    return {"level": level, "half": first_at(curve, 0.5), "quarter": first_at(curve, 0.25), "curve": curve}


def first_at(curve: Sequence[float], target: float) -> int | None:
    """The first step at which the mean success of five steps is at least `target`; None if there is none."""
    for step in range(WINDOW, len(curve) + 1):
        if sum(curve[step - WINDOW : step]) / WINDOW >= target:
            return step
    return None


def _until_half(curve: Iterator[float]) -> Iterator[float]:
    seen: list[float] = []
    for value in curve:
        seen.append(value)
        yield value
        if first_at(seen[-WINDOW:], 0.5):
            return


def successes(chain: Chain, level: int) -> Iterator[float]:
    """Train step by step; yields the share of the step's sampled answers that are right."""
    path = str(pocket.get_model_path(f"dial-{level}"))
    model, tokenizer = load_model(path), load_tokenizer(path)
    share_prefix(model)
    format = TokenFormat(Format.of(tokenizer), tokenizer)
    objective = parse(chain.objective)
    optimizer = OPTIMIZERS[chain.optimizer](model.parameters(), lr=chain.rate)
    examples = itertools.cycle(tasks.get("pocket-dial").load(None, "train", "cold"))
    for _ in range(chain.seed * QUESTIONS * max(STEPS.values())):  # other questions for another seed
        next(examples)
    for step in range(STEPS[chain.optimizer]):
        asked = list(itertools.islice(examples, QUESTIONS))
        right, loss = _step_loss(model, tokenizer, format, objective, asked, derive_seed(chain.seed, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield right


def _step_loss(
    model: Any, tokenizer: Any, format: TokenFormat, objective: Objective, asked: Sequence[tasks.Example], seed: int
) -> tuple[float, Tensor]:
    """Share of right answers, and the loss of one step."""
    prompts = [tuple(format.prompt_ids(example.prompt)) for example in asked]
    golds = [tuple(format.answer_ids(example.gold)) for example in asked]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    repeated = [prompt for prompt in prompts for _ in range(M)]
    rollouts = sample(model, repeated, format, BUDGET, stop_tokens=[end], pad=pad, seed=seed)
    right = [float(format.response_text(r.answer_ids) == asked[row // M].answer) for row, r in enumerate(rollouts)]
    trajectories = [
        replace(rollout, group=row // M, golds=(golds[row // M],), reward=right[row])
        for row, rollout in enumerate(rollouts)
    ]
    rows = collate(trajectories, choose_tails(objective.needs), pad, seed, model.device)
    logp = score(model, pack(rows))["logp"]
    answer_logp = (logp.detach().double() * rows.batch.answer).sum(1)
    batch = replace(rows.batch, logp=logp.detach(), answer_logp=answer_logp)
    return sum(right) / len(right), objective.loss(logp, batch)


def regime(level: int, folder: Path) -> dict[str, float]:
    """How graded the likelihood of a base model is, on validation questions; from the folder if kept.

    `amplified` is the mean over questions of E[w̄_M^{1-q}] / P^{1-q} at q = 0.75, w̄_M over groups of M rollouts and P
    over all of them: 1 where M rollouts see P (graded), far below 1 where most groups miss it (sparse).
    """
    q, rollouts, questions = 0.75, 128, 8
    path = pocket.get_model_path(f"dial-{level}")

    def make() -> dict[str, float]:
        asked = tasks.get("pocket-dial").load(None, "validation", "cold", questions)
        log_w = draws(load_model(str(path)), load_tokenizer(str(path)), asked, rollouts, seed=0).answer_logp
        log_p = log_w.logsumexp(1) - math.log(rollouts)
        log_mean = log_w.view(questions, -1, M).logsumexp(2) - math.log(M)
        seen = ((1 - q) * (log_mean - log_p[:, None])).exp().mean()
        return {
            "level": level,
            "log10_p": float((log_p / math.log(10)).median()),
            "amplified": float(seen),
            "score": score_norm(level),
        }

    told = {"what": "regime", "q": q, "rollouts": rollouts, "questions": questions, "weights": hash_weights(path)}
    return load_or_compute(folder / f"regime-{level}", told, make, kept(folder / f"regime-{level}"))


def score_norm(level: int, questions: int = 8) -> float:
    """‖∇ log P‖ of the base model, the mean gradient over questions: GARL's at q = 1 in one step."""
    path = str(pocket.get_model_path(f"dial-{level}"))
    model, tokenizer = load_model(path), load_tokenizer(path)
    share_prefix(model)
    asked = tasks.get("pocket-dial").load(None, "validation", "cold", questions)
    format = TokenFormat(Format.of(tokenizer), tokenizer)
    _, loss = _step_loss(model, tokenizer, format, parse(OBJECTIVES[-1]), asked, seed=0)
    loss.backward()
    return float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())


@dataclass(frozen=True)
class Escape:
    """What the seeds of one objective, optimiser and base model did.

    Attributes:
        p0: measured success probability of the base model, the median over questions.
        times: steps × learning rate / 3e-4 of each seed that escaped.
        censored: seeds that did not.
    """

    objective: str
    optimizer: str
    level: int
    p0: float
    target: str
    times: tuple[float, ...]
    censored: int

    @property
    def mean(self) -> float | None:
        """Mean time; None where a seed is censored, which a mean over the others would hide."""
        return None if self.censored else sum(self.times) / len(self.times)


def escapes(results: Mapping[Chain, Sequence[Mapping[str, Any]]], p0: Mapping[int, float]) -> list[Escape]:
    """Every objective, optimiser, base model and target, its seeds together."""
    found = []
    for name, text, target in itertools.product(OPTIMIZERS, OBJECTIVES, ("quarter", "half")):
        of_seeds = [
            (chain, runs) for chain, runs in results.items() if (chain.optimizer, chain.objective) == (name, text)
        ]
        for number, level in enumerate(LEVELS):
            steps = [(chain.rate / RATE, runs[number][target]) for chain, runs in of_seeds]
            times = tuple(scale * step for scale, step in steps if step is not None)
            found.append(Escape(text, name, level, p0[level], target, times, len(steps) - len(times)))
    return found


def slope(points: Sequence[Escape]) -> tuple[float, int] | None:
    """Slope of log time on log p0 by least squares over the points without a censored seed, and their number."""
    known = [(math.log(point.p0), math.log(point.mean)) for point in points if point.mean is not None]
    if len(known) < 2:
        return None
    x, y = (torch.tensor(values, dtype=torch.float64) for values in zip(*known, strict=True))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()), len(known)


def run(console: Console) -> tuple[list[Escape], list[dict[str, float]]]:
    """Every chain and the regime of every base model, from their folders where they are kept."""
    todo = chains()
    found = run_parallel("escape times", [partial(run_chain, chain, FOLDER) for chain in todo], console)
    regimes = run_parallel("regimes", [partial(regime, level, FOLDER) for level in LEVELS], console)
    p0 = {int(one["level"]): 10 ** one["log10_p"] for one in regimes}
    return escapes(dict(zip(todo, found, strict=True)), p0), regimes


def _name(objective: str) -> str:
    return "GRPO" if objective == "grpo()" else f"q = {COMMITMENTS[OBJECTIVES.index(objective) - 1]:g}"


def draw(found: Sequence[Escape], path: Path) -> None:
    """Time to half success against p0, a panel for each optimiser; censored points hollow, at the budget."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.6), dpi=150)
    colours = pyplot.get_cmap("viridis")
    for axes, name in zip(panels, OPTIMIZERS, strict=True):
        for number, text in enumerate(OBJECTIVES):
            points = [e for e in found if (e.objective, e.optimizer, e.target) == (text, name, "half")]
            colour = "black" if text == "grpo()" else colours((number - 1) / len(COMMITMENTS))
            known = [point for point in points if point.mean is not None]
            axes.plot([p.p0 for p in known], [p.mean for p in known], "o-", color=colour, label=_name(text), zorder=3)
            for p in known:
                axes.plot([p.p0] * 2, [min(p.times), max(p.times)], color=colour, linewidth=3, alpha=0.4)
            budget = STEPS[name] * RATES[name].get(text, RATE) / RATE
            hidden = [p.p0 for p in points if p.mean is None]
            axes.plot(hidden, [budget] * len(hidden), "^", markerfacecolor="white", color=colour, alpha=0.8)
        axes.set(xscale="log", yscale="log", xlabel="p0 of the base model (median over questions)", title=name.upper())
        axes.invert_xaxis()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("time to half success\n(steps × learning rate / 3e-4)")
    panels[0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def _write_table(found: Sequence[Escape]) -> None:
    with TABLE.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("optimizer", "objective", "target", "base model", "p0", "times", "censored seeds"))
        for one in found:
            times = " ".join(f"{time:.4g}" for time in one.times)
            rows.writerow((one.optimizer, one.objective, one.target, one.level, f"{one.p0:.3g}", times, one.censored))


def section(found: Sequence[Escape], regimes: Sequence[Mapping[str, float]]) -> str:
    """The section of docs/theory.md, from its text and the numbers."""
    head = f"| objective | {' | '.join(f'dial-{level}' for level in LEVELS)} |\n|---|{'---|' * len(LEVELS)}"
    return Template(TEXT.read_text()).substitute(
        p0="| base model | " + " | ".join(f"dial-{level}" for level in LEVELS) + " |",
        rule="|---|" + "---|" * len(LEVELS),
        log10_p="| median log10 p0 | " + " | ".join(f"{one['log10_p']:.1f}" for one in regimes) + " |",
        amplified="| E[w̄^(1-q)] / P^(1-q) | " + " | ".join(f"{one['amplified']:.2f}" for one in regimes) + " |",
        score="| ‖∇ log P‖ | " + " | ".join(f"{one['score']:.0f}" for one in regimes) + " |",
        slopes="\n".join(_slope_row(found, text) for text in OBJECTIVES),
        **{name: head + "\n" + "\n".join(_time_row(found, text, name) for text in OBJECTIVES) for name in OPTIMIZERS},
        sgd_steps=STEPS["sgd"],
        adam_steps=STEPS["adam"],
        seeds=len(SEEDS),
        m=M,
        questions=QUESTIONS,
        machine=f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, one thread each",
    )


def _of(found: Sequence[Escape], text: str, optimizer: str, target: str) -> list[Escape]:
    return [e for e in found if (e.objective, e.optimizer, e.target) == (text, optimizer, target)]


def _slope_row(found: Sequence[Escape], text: str) -> str:
    theory = "" if text == "grpo()" else f"{-(1 - COMMITMENTS[OBJECTIVES.index(text) - 1]):g}"
    cells = []
    for optimizer, target in itertools.product(OPTIMIZERS, ("quarter", "half")):
        fit = slope(_of(found, text, optimizer, target))
        cells.append("too few" if fit is None else f"{fit[0]:.2f} ({fit[1]})")
    return f"| {_name(text)} | {theory} | {' | '.join(cells)} |"


def _time_row(found: Sequence[Escape], text: str, optimizer: str) -> str:
    cells = []
    for one in _of(found, text, optimizer, "half"):
        spread = f"{min(one.times):.0f}–{max(one.times):.0f}" if one.times else ""
        cells.append(spread if not one.censored else f"{spread} {one.censored} censored".strip())
    return f"| {_name(text)} | {' | '.join(cells)} |"


def main() -> None:
    """Run what is missing; write the picture, the table and the section of docs/theory.md."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    found, regimes = run(Console(highlight=False))
    draw(found, PICTURE)
    _write_table(found)
    insert(PAGE, "pocket", section(found, regimes))


if __name__ == "__main__":
    main()
