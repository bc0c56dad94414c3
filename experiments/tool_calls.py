"""SmolLM2 with a calculator on GSM8K, a few steps: `make results-agents GSM8K=FOLDER`, in docs/results.md.

The plan, written before the first run. The model is SmolLM2-135M-Instruct, whose chat template knows no tools: the one
here does. Two worked examples stand before every question, and their turns begin with a call. From the official files
the shortest questions are taken, of train to train on and of test to ask, so that one core can pay for it. Each arm has
`STEPS` steps of 1 question × 4 rollouts, one seed, one learning rate, not tuned. Before and after, the same held-out
questions are asked with the same seed of draws: how often the calculator is called, how many of the calls are well
formed, how likely the gold answer is after what was said, and how often the answer is right. Strict success is one
number, the right one, where an answer is asked for.

Seen before, by the untrained model with temperature 1, on four to six training questions: no call in 12 rollouts where
tools are told below a plain prompt; none in 24 behind two examples that say a sentence before they call; in 12 rollouts
behind the examples that are used now, one call that was run, one that could not be read, two that were not finished.
No rollout was right.

Expected: some calls, few of them well formed, and almost no success, so that GRPO moves little or not at all. GARL and
log-prob make the gold answers likelier from the first step on. Whether that makes answers right more often is not to
be seen in so few steps and questions. One seed says nothing about how arms rank: what is asked is whether tools, a real
chat model and each kind of signal work together.

`--minutes` begins no run after so many, `--write` writes the table of what is kept and trains nothing. Runs lie in
runs/results/tool-calls, small results in experiments/kept/tool-calls.
"""

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

from open_questions import plain
from page import RUNS, insert, kept, machine_line, read_small_result, write_jsonl
from rich.console import Console
from run_budget import parse_gsm8k, run_jobs

from qredit import tasks
from qredit.core.right_answers import join_answers
from qredit.probe.measure import ProbeSetup, load, score_rows
from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import Trajectory
from qredit.runs.experiment import hash_initial_weights, load_or_compute, read_curves
from qredit.runs.load import get_stop_tokens
from qredit.runs.options import TrainOptions
from qredit.runs.smollm2 import smollm2_path
from qredit.runs.train import train
from qredit.samplers.answers import make_response, sample_each
from qredit.shared_prefix.share import share_prefix
from qredit.tasks.base import Split

FOLDER, PAGE = RUNS / "tool-calls", Path("docs/results.md")
TEXT = Path(__file__).with_name("tool_calls.md.in")
CHAT_TEMPLATE = Path(__file__).with_name("tool_calls.jinja")
UNTRAINED = "untrained"
ARMS = (UNTRAINED, "grpo()", "garl(q=0.75)", "logprob()")
STEPS, SEED = 8, 0
TRAINED, HELD, HELD_ROLLOUTS, HELD_SEED = 8, 8, 2, 1
TOOL_COUNTS = ("tool_calls", "tool_errors", "malformed_calls", "calls_not_run")


def write_call(expression: str) -> str:
    """A call of the calculator, as the chat template tells it."""
    return f"<tool_call>{json.dumps({'name': 'calculator', 'arguments': {'expression': expression}})}</tool_call>"


EXAMPLES = (
    ("user", "A shop sells 14 boxes of 12 pens each and 30 more pens. How many pens does it sell?"),
    ("assistant", write_call("14 * 12 + 30")),
    ("tool", "198"),
    ("assistant", "It is 198.\nAnswer:\n198"),
    ("user", "Tom has 45 dollars and buys 3 books at 7 dollars each. How much is left?"),
    ("assistant", write_call("45 - 3 * 7")),
    ("tool", "24"),
    ("assistant", "It is 24.\nAnswer:\n24"),
)


def write_model() -> Path:
    """SmolLM2's folder with a chat template that holds tools; the weights are linked, not copied."""
    folder = FOLDER / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for file in smollm2_path().iterdir():
        if file.name != "chat_template.jinja" and not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.resolve())
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE.read_text())
    return folder


def write_questions(data: str) -> None:
    """The shortest questions of GSM8K behind the worked examples: those to train on, and those to be asked.

    Args:
        data: folder with the official train.jsonl and test.jsonl.
    """
    splits: tuple[tuple[str, Split, int], ...] = (("train", "train", TRAINED), ("held", "test", HELD))
    for name, split, count in splits:
        shortest = sorted(tasks.get("gsm8k").load(data, split, "cold"), key=lambda one: (len(one.prompt), one.id))
        turns = [{"role": role, "content": content} for role, content in EXAMPLES]
        rows = [
            {"id": one.id, "prompt": [*turns, {"role": "user", "content": one.prompt}], "answer": one.answer}
            for one in shortest[:count]
        ]
        write_jsonl(FOLDER / name / "train.jsonl", rows)


def make_options(objective: str, model: Path) -> TrainOptions:
    """The run of an arm."""
    return TrainOptions(
        task="jsonl",
        data=str(FOLDER / "train"),
        model=str(model),
        tools="calculator",
        objective=objective,
        reward="numeric",
        seed=SEED,
        lr=3e-5,
        steps=STEPS,
        m=4,
        prompts_per_step=1,
        max_turns=2,
        max_completion_length=56,
        answer_budget=8,
        observation_budget=40,
        save_every=0,
        cpu=True,
    )


def ask_questions(options: TrainOptions, model: Path) -> dict[str, Any]:
    """What a model does with the held-out questions: counts of an episode, the gold answer's likelihood, success."""
    subject = load(replace(options, data=str(FOLDER / "held"), model=str(model)), HELD)
    share_prefix(subject.network)
    prompts, player = subject.encode_prompts(), subject.player
    assert player is not None
    stops = get_stop_tokens(subject.network, subject.tokens.tokenizer)
    played = sample_each(
        subject.make_sampler(prompts),
        subject.tokens,
        subject.budget,
        subject.examples,
        prompts,
        HELD_ROLLOUTS,
        stop_tokens=stops,
        seed=HELD_SEED,
        play=player.play,
    )
    asked = [example for example in subject.examples for _ in range(HELD_ROLLOUTS)]
    responses = [make_response(subject.tokens, example, one) for example, one in zip(asked, played, strict=True)]
    return {
        "success": statistics.mean(float((score or 0.0) >= 1.0) for score in subject.reward(responses)),
        "gold_logp": statistics.mean(score_golds(subject, played)),
        "said": [subject.tokens.text(one.ids) for one in played[::HELD_ROLLOUTS]],
        **count_calls(played),
    }


def score_golds(subject: ProbeSetup, played: list[Trajectory]) -> list[float]:
    """The log-likelihood of the gold answer after each episode, in nats."""
    groups = [number // HELD_ROLLOUTS for number in range(len(played))]
    items = [replace(one, group=at, golds=subject.golds[at]) for one, at in zip(played, groups, strict=True)]
    pad = int(subject.tokens.tokenizer.pad_token_id)  # type: ignore[attr-defined]
    rows = collate(items, ("answer",), pad, HELD_SEED, subject.network.device)
    logp = score_rows(subject.network, rows, rows.batch.answer)
    found: list[float] = join_answers(logp, rows.batch.answer, rows.batch.alias)[0].tolist()
    return found


def count_calls(played: list[Trajectory]) -> dict[str, float]:
    """Means over episodes: turns, calls of each kind, and those that ended in an answer of their own."""
    total: Counter[str] = Counter()
    for turn in (turn for one in played for turn in one.turns):
        total.update(turn.counts)
    found = {name: total[name] / len(played) for name in TOOL_COUNTS}
    return found | {"turns": statistics.mean(len(one.turns) for one in played)}


def run_arm(objective: str, train_anew: bool) -> dict[str, Any] | None:
    """One run, and what its model then does; of the untrained model, that alone.

    Args:
        objective: of `ARMS`.
        train_anew: whether a missing run is made.

    Returns:
        None where the run is not there and none is to be made.
    """
    folder = FOLDER / plain(objective)
    if not train_anew:
        return read_small_result(kept(folder))
    model, trained = write_model(), objective != UNTRAINED
    options = make_options(objective if trained else ARMS[1], model)

    def make() -> dict[str, Any]:
        final = train(options, folder / "run", Console(quiet=True)).final if trained else model
        found = ask_questions(options, final)
        return found | (read_curves(folder / "run" / "metrics.jsonl") if trained else {})

    files = [CHAT_TEMPLATE, *(FOLDER / name / "train.jsonl" for name in ("train", "held"))]
    texts = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    told = {"train": options.changed(), "weights": hash_initial_weights(options), "texts": texts}
    asked = {"objective": objective, "rollouts": HELD_ROLLOUTS, "seed": HELD_SEED}
    return load_or_compute(folder, told | asked, make, kept(folder))


def write_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for the untrained model and each arm that was run."""
    lines = []
    for objective, one in ((name, found[name]) for name in ARMS if name in found):
        calls, malformed = one["tool_calls"], one["malformed_calls"]
        formed = f"{100 * calls / (calls + malformed):.0f}" if calls + malformed else "–"
        name = objective if objective == UNTRAINED else f"`{objective}`"
        right = f"{100 * statistics.mean(one['curve']):.1f}" if "curve" in one else ""
        told = (f"{calls:.2f}", formed, f"{one['turns']:.2f}", f"{one['gold_logp']:.2f}", f"{100 * one['success']:.1f}")
        lines.append(f"| {name} | {' | '.join((*told, right))} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and write the section."""
    data, budget = parse_gsm8k(__doc__)
    if data is not None:
        write_questions(data)
    found = run_jobs(
        ARMS,
        lambda objective: run_arm(objective, not budget.is_spent),
        lambda objective, result: f"{objective}: success {100 * result['success']:.1f} %",
        Console(highlight=False),
    )
    if found:
        said = {"steps": STEPS, "rollouts": HELD * HELD_ROLLOUTS, "machine": machine_line(), "rows": write_table(found)}
        insert(PAGE, "tool calls", Template(TEXT.read_text()).substitute(said))


if __name__ == "__main__":
    main()
