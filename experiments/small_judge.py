"""SmolLM2 as the judge of steps: four objectives train from one command with it. Part of `make results-agents`.

The plan, written before the first of these runs, but for `STEPS`, which were 4: one run showed that a reply takes a
second and a half, so they became 14, with `grpo()` and held-out questions beside them. Objectives whose field a
language model fills (`capo`, `pure`, `pure_strict`, `tp_grpo`) are trained for `STEPS` steps of `PROMPTS` questions ×
`ROLLOUTS` rollouts on pocket-finqa, warm, by `qredit train` as a user calls it. The judge is SmolLM2-135M-Instruct,
greedy, at most `REPLY` tokens a reply, behind chat completions in this process. A rationale of this task is one step, a
sum, which `arithmetic()` can check: so a column says how often the judge's word is that of the sum. Expected: it
answers, seldom in the form that is asked for, and what it says is near chance. What this shows is that a run lives with
such a judge, not that one helps: one seed at these sizes tells no method from another.

Added after the first of these: `qredit intervene --by "local('smollm2')"` on the wrong rollouts of `ZERO_STEPS` steps
on pocket-hotpot, warm, and, if it corrects any, `qredit sft` on the rows. Expected: few corrections or none.

Runs lie in runs/results/small-judge, their small results in experiments/kept/small-judge. `--minutes` begins no run
after so many, `--write` writes the table of what is there. Some ten minutes of a core.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any

import torch
from page import RUNS, insert, kept, machine_line, read_small_result, tell_gap
from rich.console import Console
from run_budget import RunBudget, parse_budget, run_jobs

from qredit.rewards.equations import judge_equations
from qredit.rewards.judge.endpoint import parse_step_list
from qredit.runs.experiment import EvalSpec, evaluate_model, load_or_compute
from qredit.runs.interventions import REASONS
from qredit.runs.load import load_model, load_tokenizer
from qredit.runs.options import TrainOptions
from qredit.runs.smollm2 import smollm2_path

FOLDER, PAGE = RUNS / "small-judge", Path("docs/results.md")
TEXT = Path(__file__).with_name("small_judge.md.in")
STEPS, PROMPTS, ROLLOUTS, REPLY = 14, 2, 4, 24
HELD = EvalSpec(questions=256, k=4)
GRPO, TOLD = "grpo()", "tp_grpo(alpha=0.5)"
ZERO_STEPS, CONTINUATIONS, STEP_TOKENS = 2, 8, 24
OBJECTIVES = {  # objective: the field that the judge fills, and with what
    "capo()": "wrong_step=judge_wrong_steps",
    "pure()": "step_score=judge_step_scores",
    "pure_strict()": "step_score=judge_step_scores",
    TOLD: "unused_step=judge_unused_steps",
    GRPO: "",
}

_STEP = re.compile(r"<step number=\"\d+\">\n(.*?)\n</step>", re.DOTALL)


class SmallJudge:
    """SmolLM2 behind chat completions on a free port of this machine, one request after the other, until `close`.

    Attributes:
        asked: what it was asked about, with its reply and the seconds that it took, in order.
    """

    def __init__(self) -> None:
        path = str(smollm2_path())
        self.tokenizer, self.model = load_tokenizer(path), load_model(path, torch.device("cpu"))
        self.asked: list[tuple[str, str, float]] = []
        lock, judge = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *given: object) -> None:
                pass

            def do_POST(self) -> None:
                messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
                with lock:
                    begun = time.perf_counter()
                    said = judge.reply(messages)
                    judge.asked.append((messages[-1]["content"], said, time.perf_counter() - begun))
                text = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/chat/completions"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, messages: list[dict[str, str]]) -> str:
        """What the model says, greedily."""
        told = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            drawn = self.model.generate(**told, do_sample=False, max_new_tokens=REPLY)
        return str(self.tokenizer.decode(drawn[0, told["input_ids"].shape[1] :], skip_special_tokens=True))

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


def run_objective(objective: str, budget: RunBudget) -> dict[str, Any] | None:
    """What came of a run; None where it is not there and none is to be begun.

    Args:
        objective: of `OBJECTIVES`.
        budget: whether a missing run is made.
    """
    folder = FOLDER / objective.split("(")[0]
    if budget.is_spent:
        return read_small_result(kept(folder))
    facts = {"objective": objective, "steps": STEPS, "prompts": PROMPTS, "rollouts": ROLLOUTS, "reply": REPLY}
    facts |= {"held": asdict(HELD)}
    return load_or_compute(folder, facts, lambda: train_with_judge(objective, folder / "run"), kept(folder))


def train_with_judge(objective: str, run: Path) -> dict[str, Any]:
    """`qredit train` with the judge, as a user calls it; raises where it does not end well."""
    judge = SmallJudge()
    try:
        maker = OBJECTIVES[objective]
        run_qredit(
            *("train", "--task", "pocket-finqa", "--style", "warm", "--cpu", "--objective", objective),
            *(("--field", f'{maker}("{judge.url}", "smollm2")') if maker else ()),
            *("--m", ROLLOUTS, "--prompts-per-step", PROMPTS, "--steps", STEPS, "--save-every", 0, "--seed", 0),
            *("--output", run),
        )
    finally:
        judge.close()
    asked = TrainOptions(task="pocket-finqa", style="warm", cpu=True)
    steps = [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "reward" in line]
    return {
        "steps": len(steps),
        "p@1": evaluate_model(asked, str(run / "final"), HELD)["p@1"],
        "unanswered": [step.get("judge/unanswered", 0.0) for step in steps],
        "unreadable": [step.get("judge/unreadable", 0.0) for step in steps],
        "moved": [step["grad_norm"] for step in steps],
        "asked": [{"about": about, "said": said, "seconds": round(spent, 2)} for about, said, spent in judge.asked],
    }


def run_corrections(budget: RunBudget) -> dict[str, Any] | None:
    """What came of wrong rollouts that SmolLM2 was asked to correct; None where it was not asked and is not to be.

    Args:
        budget: whether it is asked.
    """
    folder = FOLDER / "corrections"
    if budget.is_spent:
        return read_small_result(kept(folder))
    facts = {"steps": ZERO_STEPS, "continuations": CONTINUATIONS, "step_tokens": STEP_TOKENS}
    return load_or_compute(folder, facts, lambda: correct_rollouts(folder), kept(folder))


def correct_rollouts(folder: Path) -> dict[str, Any]:
    """A short run, its wrong rollouts corrected by SmolLM2, and fine-tuning on what was corrected."""
    zero, rows = folder / "zero", folder / "corrections.jsonl"
    task = ["--task", "pocket-hotpot", "--style", "warm", "--cpu"]
    run_qredit("train", *task, "--steps", ZERO_STEPS, "--keep-rollouts", "--save-every", 0, "--output", zero)
    by = f"local('smollm2', max_tokens={STEP_TOKENS})"
    sizes = ("--step-tokens", STEP_TOKENS, "--continuations", CONTINUATIONS)
    source = ("--run", zero, "--output", rows, "--by", by, "--steps", "sentences")
    corrected = run_qredit("intervene", "--json", *source, *sizes)
    told: dict[str, Any] = json.loads(corrected)
    if told["rows"]:
        run_qredit("sft", *task, "--completions", rows, "--steps", 2, "--output", folder / "int")
    return {"wrong_rollouts": told["wrong_rollouts"], "kept": told["kept"], "left_out": told["left_out"]}


def run_qredit(*arguments: object) -> str:
    """What a command prints; raises where it does not end well."""
    command = [sys.executable, "-m", "qredit", *map(str, arguments)]
    near = os.environ | {"no_proxy": "127.0.0.1"}  # the judge stands on this machine
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=near).stdout


def write_corrections(found: Mapping[str, Any]) -> str:
    """How many wrong rollouts gave a row, and why the others did not."""
    reasons = ", ".join(f"{count}: {REASONS[name]}" for name, count in sorted(found["left_out"].items()))
    return f"{found['kept']} of {found['wrong_rollouts']} wrong rollouts gave a row. Of the others {reasons}."


def list_verdicts(found: Mapping[str, Any]) -> Iterator[tuple[bool, bool | None]]:
    """Of each step of readable replies: whether the judge names it, and whether its sum is right, if it is one."""
    for one in found["asked"]:
        steps = _STEP.findall(one["about"])
        named = parse_step_list(one["said"], len(steps))
        if named is not None:
            yield from ((number in named, judge_equations(step)) for number, step in enumerate(steps))


def write_rows(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One line for each objective that was run."""
    for objective, one in found.items():
        success = f"{100 * one['p@1']['value']:.1f}"
        if not one["asked"]:
            yield f"| `{objective}` | {' | '.join(['none', *['–'] * 6])} | {success} |"
            continue
        verdicts = list(list_verdicts(one))
        sums = [named != right for named, right in verdicts if right is not None]  # named means: this one is wrong
        wrong = [not right for _, right in verdicts if right is not None]
        cells = (
            str(len(one["asked"])),
            f"{100 * statistics.mean(one['unanswered']):.0f}",
            f"{100 * statistics.mean(one['unreadable']):.0f}",
            f"{100 * statistics.mean(named for named, _ in verdicts):.0f}" if verdicts else "–",
            f"{100 * statistics.mean(wrong):.0f}" if wrong else "–",
            f"{100 * statistics.mean(sums):.0f}" if sums and not objective.startswith("tp_") else "–",
            success,
        )
        yield f"| `{objective}` | `{OBJECTIVES[objective].split('=')[1]}` | {' | '.join(cells)} |"


def tell_judged_effects() -> dict[str, str]:
    """What the page of a method says of its run here, by name, where no other run of it is told; of what is kept."""
    results = {objective: read_small_result(kept(FOLDER / objective.split("(")[0])) for objective in (TOLD, GRPO)}
    own, grpo = results[TOLD], results[GRPO]
    if own is None or grpo is None:
        return {}
    gap = 100 * (own["p@1"]["value"] - grpo["p@1"]["value"])
    measured = f"p@1 {100 * own['p@1']['value']:.1f} % with SmolLM2 as judge, {gap:+.1f}"
    link = "[a small judge](../results.md#a-small-model-as-the-judge-of-steps)"
    return {TOLD.split("(")[0]: tell_gap(measured, 1, link, "the judge's replies could not be read")}


def main() -> None:
    """Run what is missing and write the section."""
    _, budget = parse_budget(argparse.ArgumentParser(description=__doc__))
    found = run_jobs(
        OBJECTIVES,
        lambda objective: run_objective(objective, budget),
        lambda objective, told: f"{objective}: {told['steps']} steps, {len(told['asked'])} questions",
        Console(highlight=False),
    )
    corrected = run_corrections(budget)
    if found and corrected:
        said = {"steps": STEPS, "prompts": PROMPTS, "rollouts": ROLLOUTS, "reply": REPLY, "machine": machine_line()}
        rows, ours = "\n".join(write_rows(found)), write_corrections(corrected)
        insert(PAGE, "small judge", Template(TEXT.read_text()).substitute(said, rows=rows, corrections=ours))


if __name__ == "__main__":
    main()
