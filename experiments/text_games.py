"""Rules of rewards over turns on TextWorld's games, on equal rollouts: `make results-agents`, in docs/results.md.

The plan, written before the first run. The games are those of `pocket_models.text_games`: two quests of at most two
commands, each quest a point, and what is read first names them in their order. The player has been shown experts of
games 0 to 39 and mixes names up, so that it wins now and then. It is trained on games 40 to 63 and then plays games 64
to 79, which nobody has seen, four times each, with at most six turns. It does not think. Arms differ in how turns are
paid: GRPO pays all turns of an episode alike, GiGPO compares turns that were taken in one state, MT-GRPO those at one
place by their own reward. Their relatives were added after these three were seen to be alike, with seed 0 alone. No
gold answer is read. Seeds 0 to 2, `STEPS` steps of 4 games × 8 rollouts, one learning rate, not tuned.

Seen before, one seed each: after 400 batches of experts the player won 6 % of held-out games. Seven steps of GRPO at
1e-3 with 2 games × 8 rollouts took the score from 0.4 to 0 in three, and 14 at 3e-4 took that of held-out games from
0.3 to 0. Shown 600 batches and with 4 games a step, 24 steps of GRPO at 3e-4, the rate of the other pocket runs, ended
in no wins of 64 and a score of 0.06: late turns, which mostly fail, were no commands any more. In half to three
quarters of the groups all rollouts scored alike. So the rate is 1e-4, and there are 16 steps, so that all of
it is done in minutes.

Expected: all three win more often than the untrained player. In half of the turns nothing is earned, and a wrong
command leaves the state as it was, so that states are met again and again: GiGPO has something to compare there and
should be ahead of GRPO. MT-GRPO's turn rewards compare turns by their number, which is no place in a game once a
command has failed: it should not be ahead of GRPO by more than the seeds differ.

An arm is above or below GRPO where the 95 % interval of the paired difference of wins, over games and seeds, excludes
0. Seeds come one after the other, so that what is cut off has whole seeds. Games, player and runs lie in
runs/results/text-games, small results in experiments/kept/text-games. `--minutes` begins no run after so many,
`--write` writes the table of what is kept and trains nothing.
"""

import argparse
import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
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
    write_jsonl,
)
from pocket_models.measure import play_episodes
from pocket_models.text_games import BEST_SCORE, PROMPT, Recipe, compile_game, make_player
from rich.console import Console
from run_budget import parse_budget, run_jobs

from qredit.environments.adapters.textworld import COLUMN
from qredit.rollouts.trajectory import Trajectory
from qredit.runs.experiment import hash_initial_weights, load_or_compute, read_curves
from qredit.runs.load import load_examples, load_model, load_tokenizer
from qredit.runs.options import TrainOptions
from qredit.runs.train import train

FOLDER, PAGE = RUNS / "text-games", Path("docs/results.md")
TEXT = Path(__file__).with_name("text_games.md.in")
SHOWN, TRAINED, HELD = range(40), range(40, 64), range(64, 80)
HELD_ROLLOUTS, HELD_SEED = 4, 1
SEEDS, STEPS, LAST = (0, 1, 2), 16, 5
BASE = "grpo()"
LEADING = (BASE, "gigpo()", "mt_grpo()")
RELATIVES = {  # one seed each; whatever needs no gold answer, with the rule by which its episodes branch
    "tree_grpo()": "trees(roots=2, nodes=3)",
    "arpo()": "unsure_turns()",
    "aem()": None,
    "empg(bonus=0.05)": None,
    "gtpo(pool='turn')": None,
    "matchtir()": None,
}
ARMS = (*LEADING, *RELATIVES)
UNTRAINED = "untrained"
RECIPE = Recipe()


def prepare() -> Path:
    """Compile the games, write the rows that name them, and make the player where it is not there; its folder."""
    games = {seed: compile_game(seed, FOLDER / "games") for part in (SHOWN, TRAINED, HELD) for seed in part}
    for split, seeds in (("train", TRAINED), ("test", HELD)):
        rows = [{"id": str(seed), "prompt": PROMPT, "answer": "won", COLUMN: str(games[seed])} for seed in seeds]
        write_jsonl(FOLDER / "data" / f"{split}.jsonl", rows)
    player = FOLDER / "player"
    if not (player / "tokenizer.json").is_file():  # the last that is written
        make_player(player, [games[seed] for seed in SHOWN], RECIPE)
    return player


def make_options(objective: str, seed: int, player: Path) -> TrainOptions:
    """One run: equal rollouts, games and budgets for every arm.

    Args:
        objective: in its text form.
        seed: of the run.
        player: folder of the model that it begins with.
    """
    return TrainOptions(
        task="jsonl",
        data=str(FOLDER / "data"),
        model=str(player),
        env="textworld",
        objective=objective,
        branching=RELATIVES.get(objective),
        seed=seed,
        lr=1e-4,
        steps=STEPS,
        m=8,
        prompts_per_step=4,
        max_turns=6,
        max_completion_length=12,
        answer_budget=12,
        observation_budget=224,
        save_every=0,
        cpu=True,
    )


def read_wins(played: Sequence[Trajectory]) -> dict[str, Any]:
    """What came of held-out games: the share of wins and the score of each, and the turns of an episode."""
    scores = [one.episode_reward for one in played]
    groups = [scores[start : start + HELD_ROLLOUTS] for start in range(0, len(scores), HELD_ROLLOUTS)]
    each = [statistics.mean(score >= BEST_SCORE for score in group) for group in groups]
    return {
        "p@1": statistics.mean(each),
        "each": {"p@1": each},
        "score": statistics.mean(scores),
        "turns": statistics.mean(len(one.turns) for one in played),
    }


def hash_games() -> str:
    """SHA-256 of what is told of the games that are trained on or held out; the compiled ones hold a date."""
    found = hashlib.sha256()
    for seed in (*TRAINED, *HELD):
        found.update((FOLDER / "games" / f"{seed}.json").read_bytes())
    return found.hexdigest()


def run_arm(objective: str, seed: int, train_anew: bool) -> dict[str, Any] | None:
    """One run and what it wins, or what the untrained player wins; None where it is not there and none is to be made.

    Args:
        objective: in its text form, or `UNTRAINED`.
        seed: of the run.
        train_anew: whether a missing run is made.
    """
    folder = FOLDER / f"{plain(objective)}-{seed}"
    if not train_anew:
        return read_small_result(kept(folder))
    player = prepare()
    options = make_options(BASE if objective == UNTRAINED else objective, seed, player)

    def make() -> dict[str, Any]:
        trained = objective != UNTRAINED
        final = train(options, folder / "run", Console(quiet=True)).final if trained else player
        tokenizer, model = load_tokenizer(str(final)), load_model(str(final), options.device)
        asked = [one for one in load_examples(options, "test") for _ in range(HELD_ROLLOUTS)]
        found = read_wins(play_episodes(options, model, tokenizer, asked, HELD_SEED))
        return found | (read_curves(folder / "run" / "metrics.jsonl") if trained else {})

    told = {"train": options.changed(), "weights": hash_initial_weights(options), "games": hash_games()}
    asked = {"held": [HELD.start, HELD.stop], "rollouts": HELD_ROLLOUTS, "seed": HELD_SEED}
    return load_or_compute(folder, {**told, "asked": asked, "objective": objective}, make, kept(folder))


def list_jobs() -> Iterator[tuple[str, int]]:
    """Arm and seed, in the order in which they are run."""
    yield UNTRAINED, SEEDS[0]
    for seed in SEEDS:
        yield from ((objective, seed) for objective in LEADING)
    yield from ((objective, SEEDS[0]) for objective in RELATIVES)


Found = Mapping[tuple[str, int], Mapping[str, Any]]


def write_table(found: Found) -> str:
    """One line for the untrained player and each arm that has a run: mean and range over its seeds."""
    lines = []
    for objective in (UNTRAINED, *ARMS):
        own = {seed: result for (name, seed), result in found.items() if name == objective}
        if not own:
            continue
        shared = [seed for seed in own if objective not in (UNTRAINED, BASE) and (BASE, seed) in found]
        gap = paired_difference([own[s] for s in shared], [found[BASE, s] for s in shared]) if shared else None
        cells = [
            percent_cell([one["p@1"] for one in own.values()]),
            "" if gap is None else gap_cell(gap),
            *(range_cell([one[name] for one in own.values()]) for name in ("score", "turns")),
            range_cell([statistics.mean(one["curve"][-LAST:]) for one in own.values()]) if objective in ARMS else "",
        ]
        name = objective if objective == UNTRAINED else f"`{objective}`"
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_jobs(
        list_jobs(),
        lambda job: run_arm(*job, not budget.is_spent),
        lambda job, result: f"{job[0]} seed {job[1]}: wins {100 * result['p@1']:.1f} %",
        Console(highlight=False),
    )
    if found:
        recipe = {f"player_{name}": value for name, value in asdict(RECIPE).items()}
        said = {"steps": STEPS, "machine": machine_line(), "rows": write_table(found), "games": len(SHOWN), **recipe}
        insert(PAGE, "text games", Template(TEXT.read_text()).substitute(said))


if __name__ == "__main__":
    main()
