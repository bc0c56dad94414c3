"""What branches cost beside rollouts of their own: `python experiments/branching_cost.py`.

The pocket search agent behind warm prompts plays its episodes, 12 of each question: all from the prompt, and by each
rule. All four take turns within one process. Tokens are those that were drawn; seconds are CPU time of sampling with
the environments in it. A ratio to rollouts of their own is the median over rounds. Two minutes.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from page import machine_line
from rich.console import Console
from rich.table import Table

from qredit.environments.branching.parsing import parse_branching
from qredit.rollouts.trajectory import Trajectory
from qredit.runs.episodes import make_player
from qredit.runs.library_logging import silence_libraries
from qredit.runs.load import find_weights, get_stop_tokens, load_examples, load_model, load_tokenizer
from qredit.runs.options import TrainOptions
from qredit.runs.train import make_token_format
from qredit.samplers.answers import as_row
from qredit.samplers.protocol import Completion, Request
from qredit.samplers.transformers import make_sampler

OPTIONS = TrainOptions(
    task="pocket-hotpot",
    env="pocket-search",
    style="warm",
    max_turns=4,
    max_completion_length=32,
    answer_budget=8,
    observation_budget=48,
    cpu=True,
)
RULES = (None, "trees(roots=2, nodes=5)", "unsure_turns()", "candidates(k=4)")
QUESTIONS, ROLLOUTS = 8, 12


@dataclass
class CountingSampler:
    """A sampler that counts the tokens that it draws."""

    inner: object
    drawn: int = 0

    def sync(self, model: torch.nn.Module) -> None:
        """Nothing changes here."""

    def sample(self, requests: Sequence[Request], seed: int) -> list[Completion]:
        """As the sampler inside."""
        found: list[Completion] = self.inner.sample(requests, seed)  # type: ignore[attr-defined]
        self.drawn += sum(len(one.ids) for one in found)
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    silence_libraries()
    torch.set_num_threads(1)
    path = find_weights(OPTIONS)
    tokenizer, model = load_tokenizer(path), load_model(path, torch.device("cpu"))
    examples = load_examples(OPTIONS, "test", QUESTIONS)
    tokens = make_token_format(OPTIONS, tokenizer, examples)
    player = make_player(OPTIONS, tokens, [one.prompt for one in examples])
    assert player is not None
    rows = [as_row(one) for one in examples for _ in range(ROLLOUTS)]
    prompts = [tokens.prompt_ids(row["prompt"]) for row in rows]
    sampler = CountingSampler(make_sampler(model, tokenizer.pad_token_id))
    stops = get_stop_tokens(model, tokenizer)

    def play(rule: str | None, seed: int) -> tuple[float, int, list[Trajectory]]:
        sampler.drawn, start = 0, time.process_time()
        made = None if rule is None else parse_branching(rule)
        found = player.play(sampler, prompts, rows, stop_tokens=stops, seed=seed, branching=made)
        return time.process_time() - start, sampler.drawn, found

    play(None, 0)
    rounds = [{rule: play(rule, seed) for rule in RULES} for seed in range(asked.rounds)]
    table = Table("rule", "tokens drawn", "CPU seconds", "own turns of a rollout", title=machine_line())
    for rule in RULES:
        drawn = statistics.median(one[rule][1] / one[None][1] for one in rounds)
        seconds = statistics.median(one[rule][0] / one[None][0] for one in rounds)
        own = statistics.mean(len(t.turns) - t.branch for one in rounds for t in one[rule][2])
        table.add_row(rule or "none", f"{drawn:.2f}", f"{seconds:.2f}", f"{own:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
