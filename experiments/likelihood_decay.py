"""Does GRPO lose the likelihood of right search episodes, and does LLDS keep it? Part of `make results-agents`.

The plan, written before the first run. arXiv 2512.04220 sees GRPO on a search agent lose the likelihood of right
responses, slowly, then fast, until training collapses, and adds a price on what is lost (LLDS). Here the pocket search
model is asked warm, so that rewards are seen. `KEPT_QUESTIONS` questions that are not trained on are asked
`KEPT_SAMPLES` times before training, and the right episodes with a search in them are kept: one fixed set for all runs.
Along each run their mean log-likelihood per sampled token is measured, of all turns, of those that search and of the
one that answers, beside the success of the rollouts and, at the end, held-out p@1. Observations are never counted.

GRPO is that of the paper's code, with one mean over the tokens: `BARE`. It climbs `LADDER`, learning rate and updates
on each generation, from mild to harsh, one seed. The first rung on which the fixed set ends `DECAY` nats per token or
more below where it began is where all `ARMS` run, three seeds. If there is none they run on the last rung, and it is
said that none was seen. LLDS is also tried on the last rung, one seed. Expected: the mild rungs sharpen the policy and
show none. LLDS is 0 at the first update on a generation, so rungs have several. A fixed set has a weakness: a policy
that comes to write other right episodes loses likelihood on these without harm. Success tells the two apart. Changed
after the ladder was climbed: a fourth rung of 3e-3 was left out, for on the third no success was left.

Runs are kept in runs/results/likelihood-decay, their small results in experiments/kept/likelihood-decay. `--minutes`
begins no run after so many, `--write` writes the table of what is there and trains nothing.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import torch
from agents import COLD
from open_questions import plain
from page import RUNS, insert, kept, machine_line, percent_cell, range_cell, read_small_result
from rich.console import Console
from run_budget import parse_budget
from transformers import TrainerCallback

from qredit.rollouts.collate import Rows, collate
from qredit.rollouts.trajectory import Trajectory
from qredit.runs.episodes import get_asked_template, make_player
from qredit.runs.experiment import EvalSpec, evaluate_model, hash_initial_weights, load_or_compute, read_curves
from qredit.runs.folder import RunFolder
from qredit.runs.lifecycle import run_to_the_end
from qredit.runs.load import find_weights, get_stop_tokens, load_examples, load_model, load_tokenizer
from qredit.runs.options import TrainOptions
from qredit.runs.samplers import make_answer_sampler
from qredit.runs.train import build_trainer, make_token_format
from qredit.samplers.answers import sample_each
from qredit.stats.masked import apply_mask
from qredit.trl import QreditTrainer

FOLDER, PAGE = RUNS / "likelihood-decay", Path("docs/results.md")
TEXT = Path(__file__).with_name("likelihood_decay.md.in")
BARE = "dapo(epsilon_high=0.2, dual_clip=None)"
ARMS = (BARE, "llds(kl=0.0)", "llds(kl=0.0, searches=2)")
SEEDS, STEPS, EVERY, DECAY = (0, 1, 2), 60, 2, 0.1
HELD = EvalSpec(questions=64, k=8)
KEPT_QUESTIONS, KEPT_SAMPLES = 32, 4
WARM = replace(COLD, style="warm", steps=STEPS)
PARTS = ("all", "searching", "answering")


@dataclass(frozen=True)
class Rung:
    """How harshly a run learns: its learning rate, and its updates on each generation."""

    lr: float
    updates: int

    def __str__(self) -> str:
        return f"{self.lr:g}, {self.updates}"

    def options(self, objective: str, seed: int) -> TrainOptions:
        """Those of a run."""
        again = {"num_iterations": self.updates} if self.updates > 1 else {}
        return replace(WARM, objective=objective, lr=self.lr, seed=seed, training=again)


LADDER = (Rung(3e-4, 2), Rung(1e-3, 4), Rung(2e-3, 4))


@cache
def record_right_episodes() -> Rows:
    """The fixed set: right episodes of the initial model that searched, one group for each question."""
    path = find_weights(WARM)
    tokenizer, network = load_tokenizer(path), load_model(path, WARM.device)
    asked = load_examples(WARM, "validation", KEPT_QUESTIONS)
    tokens, told = make_token_format(WARM, tokenizer, asked), [one.prompt for one in asked]
    template, player = get_asked_template(WARM, told), make_player(WARM, tokens, told)
    assert player is not None
    episodes = sample_each(
        make_answer_sampler(network, tokens, None, 512),
        tokens,
        WARM.sampling_budget,
        asked,
        [tokens.prompt_ids(prompt, **template) for prompt in told],
        KEPT_SAMPLES,
        stop_tokens=get_stop_tokens(network, tokenizer),
        seed=0,
        play=player.play,
    )
    right = [replace(one, group=n // KEPT_SAMPLES) for n, one in enumerate(episodes) if is_right_search(one)]
    return collate(right, ("response",), tokenizer.pad_token_id, 0, torch.device("cpu"))


def is_right_search(one: Trajectory) -> bool:
    """Whether it searched and then answered rightly."""
    return len(one.turns) > 1 and one.episode_reward == 1


@dataclass
class LikelihoodMeter(TrainerCallback):  # type: ignore[misc]
    """Measures the fixed set before the first update, and behind every `EVERY`th."""

    trainer: QreditTrainer
    rows: Rows
    found: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.measure()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % EVERY == 0:
            self.measure()

    def measure(self) -> None:
        """Mean over episodes of the mean log-likelihood of their sampled tokens, in nats."""
        batch = self.rows.batch
        assert batch.turn is not None
        with torch.no_grad():
            logp = self.trainer.scorer.score(self.trainer.model, self.rows)["logp"].double()
        last = batch.turn == batch.turn.where(batch.sampled, 0).amax(1, keepdim=True)
        parts = {"all": batch.sampled, "searching": batch.sampled & ~last, "answering": batch.sampled & last}
        for name, counted in parts.items():
            mean = apply_mask(logp, counted).sum(1) / counted.sum(1)
            self.found[name].append(round(float(mean.mean()), 4))


def train_metered(options: TrainOptions, folder: Path) -> tuple[str, dict[str, list[float]]]:
    """The final model of a run, and what the meter saw along it."""
    meters = []

    def build(run: RunFolder) -> tuple[QreditTrainer, dict[str, Any]]:
        trainer, facts = build_trainer(options, run)
        meters.append(LikelihoodMeter(trainer, record_right_episodes()))
        trainer.add_callback(meters[0])
        return trainer, facts

    result = run_to_the_end(folder, options, options.as_dict(), build, Console(quiet=True))
    return str(result.final), meters[0].found


def run_arm(rung: Rung, objective: str, seed: int, train_anew: bool) -> dict[str, Any] | None:
    """One run; None where it is not there and none is to be made.

    Args:
        rung: how harshly it learns.
        objective: in its text form.
        seed: of the run.
        train_anew: whether a missing run is made.
    """
    folder = FOLDER / f"{rung.lr:g}-{rung.updates}-{plain(objective)}-{seed}"
    if not train_anew:
        return read_small_result(kept(folder))
    options = rung.options(objective, seed)

    def make() -> dict[str, Any]:
        final, likelihood = train_metered(options, folder / "run")
        return {
            **evaluate_model(options, final, HELD),
            **read_curves(folder / "run" / "metrics.jsonl"),
            "likelihood": likelihood,
            "episodes": len(record_right_episodes().batch.mask),
        }

    asked = {"questions": KEPT_QUESTIONS, "samples": KEPT_SAMPLES, "every": EVERY}
    facts = {"train": options.changed(), "weights": hash_initial_weights(options), "held": asdict(HELD), "kept": asked}
    return load_or_compute(folder, facts, make, kept(folder))


def has_decayed(result: Mapping[str, Any]) -> bool:
    """Whether the fixed set ended `DECAY` nats a token below where it began."""
    along = result["likelihood"]["all"]
    return bool(along[-1] <= along[0] - DECAY)


Found = Mapping[tuple[Rung, str, int], Mapping[str, Any]]


def choose_rung(found: Found) -> Rung:
    """The first rung on which the fixed set decayed, else the last one."""
    runs = ((rung, found.get((rung, BARE, SEEDS[0]))) for rung in LADDER)
    return next((rung for rung, result in runs if result is not None and has_decayed(result)), LADDER[-1])


def write_table(found: Found) -> str:
    """A line for each rung and objective: mean and range over seeds."""
    lines = []
    for rung in LADDER:
        for objective in ARMS:
            own = [result for (at, name, _), result in found.items() if (at, name) == (rung, objective)]
            if not own:
                continue
            along = [one["likelihood"] for one in own]
            cells = [percent_cell([one["p@1"]["value"] for one in own])]
            cells += [range_cell([one[part][-1] for one in along]) for part in PARTS]
            cells += [range_cell([min(one["all"]) for one in along])]
            lines.append(f"| {rung.lr:g} | {rung.updates} | `{objective}` | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tell(found: Found) -> dict[str, str]:
    """What the text of the section is filled with."""
    result = next(iter(found.values()))
    before = [f"{result['likelihood'][part][0]:.2f}" for part in PARTS]
    return {
        "rows": write_table(found),
        "machine": machine_line(),
        "episodes": str(result["episodes"]),
        "before": f"{before[0]} ({before[1]} and {before[2]})",
        "rung": f"{choose_rung(found).lr:g} with {choose_rung(found).updates} updates",
    }


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    console = Console(highlight=False)
    found: dict[tuple[Rung, str, int], dict[str, Any]] = {}

    def find(rung: Rung, objective: str, seed: int) -> None:
        result = run_arm(rung, objective, seed, not budget.is_spent)
        if result is not None:
            found[rung, objective, seed] = result
            along = result["likelihood"]["all"]
            console.print(
                f"{rung} {objective} {seed}: p@1 {result['p@1']['value']:.3f}, {along[0]:.3f} → {along[-1]:.3f} "
                f"(lowest {min(along):.3f}), {result['wall']} s",
                soft_wrap=True,
            )

    for rung in LADDER:
        find(rung, BARE, SEEDS[0])
    for seed in SEEDS:
        for objective in ARMS:
            find(choose_rung(found), objective, seed)
    find(LADDER[-1], ARMS[1], SEEDS[0])
    if found:
        insert(PAGE, "likelihood decay", Template(TEXT.read_text()).safe_substitute(tell(found)))


if __name__ == "__main__":
    main()
