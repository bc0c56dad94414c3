"""The evidence behind docs/results.md: `make results`.

Every run is kept in runs/results and taken from there the next time, so that an interrupted `make results` goes on
where it stopped. From scratch it takes about an hour on two cores. Seeds: 0, 1, 2 for the results, 100 for choosing the
learning rate, on validation questions.
"""

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from string import Template
from typing import Any

import torch
from page import insert, kept
from rich.console import Console
from rich.progress import Progress
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from qredit import pocket
from qredit.cli.demo_command import FULL_OBJECTIVES, make_folder_name
from qredit.pocket.models import LEVELS
from qredit.rollouts.sampling_params import TokenBudget
from qredit.runs.curve_plots import plot_curves
from qredit.runs.experiment import (
    EvalSpec,
    Variant,
    compute_mean_and_range,
    evaluate_model,
    hash_initial_weights,
    hash_weights,
    load_or_compute,
    run_variant,
)
from qredit.runs.library_logging import silence_libraries
from qredit.runs.load import load_examples, load_model, load_tokenizer, make_dataset, resolve_model_path
from qredit.runs.options import TrainOptions
from qredit.runs.progress_bars import make_progress_bars as bars_on
from qredit.runs.train import make_token_format
from qredit.runs.warmup import choose_warmup_steps
from qredit.samplers.transformers import sample
from qredit.stats.interval import mean_interval
from qredit.utils.seed import derive_seed

FOLDER, PAGE, PICTURE = Path("runs/results"), Path("docs/results.md"), Path("docs/results.png")
OBJECTIVES, DIAL = FULL_OBJECTIVES, LEVELS
SEEDS, SWEEP_SEED, SWEEP_STEPS = (0, 1, 2), 100, 40
RATES = (3e-4, 1e-4, 1e-3)  # in order of preference among equals
COLD = TrainOptions(steps=80, cpu=True)
WARM = replace(COLD, style="warm", objective="grpo()")
HELD, CHOOSING = EvalSpec(questions=256), EvalSpec(questions=64, split="validation")


def chosen_rate(objective: str, bars: Progress, console: Console) -> dict[str, Any]:
    """The rate with the highest p@1 on validation questions, the first of `RATES` among equals; and what each gave."""
    found = {}
    for rate in RATES:
        options = replace(COLD, objective=objective, lr=rate, seed=SWEEP_SEED, steps=SWEEP_STEPS)
        folder = FOLDER / "sweep" / make_folder_name(objective, f"{rate:g}")
        found[rate] = run_variant(Variant(options), folder, CHOOSING, console, kept(folder))
        bars.advance(bars.task_ids[0])
    best = max(RATES, key=lambda rate: (found[rate]["p@1"], -RATES.index(rate)))
    wall = sum(result["wall"] for result in found.values())
    return {"rate": best, "found": {f"{rate:g}": found[rate]["p@1"] for rate in RATES}, "wall": wall}


def trl_alone(seed: int, folder: Path) -> dict[str, Any]:
    """TRL's GRPOTrainer, untouched, on the cold questions: same model, prompts, sizes and learning rate."""
    options = replace(COLD, objective="grpo()", seed=seed)

    def make() -> dict[str, Any]:
        path = resolve_model_path(options.model, options.task, None)
        tokenizer = load_tokenizer(path)
        format = make_token_format(options, tokenizer)
        closing, end = format.close_ids[0], tokenizer.eos_token_id
        examples = load_examples(options, "train")
        data = make_dataset(examples, [format.format.render(e.prompt, tokenizer) for e in examples])

        def right(completion_ids: list[list[int]], answer: list[str], **columns: Any) -> list[float]:
            def said(ids: list[int]) -> str:
                after = ids[ids.index(closing) + 1 :] if closing in ids else []
                return tokenizer.decode([token for token in after if token != end]) if after else ""

            return [float(said(ids) == gold) for ids, gold in zip(completion_ids, answer, strict=True)]

        rows = options.m * options.prompts_per_step
        args = GRPOConfig(
            output_dir=str(folder / "run"),
            max_steps=options.steps,
            per_device_train_batch_size=rows,
            num_generations=options.m,
            max_completion_length=sum((options.budget[0], 1)),
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=choose_warmup_steps(options.steps, options.warmup),
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            seed=seed,
        )
        set_seed(seed)
        trainer = GRPOTrainer(load_model(path), right, args, data, processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model(str(folder / "run" / "final"))
        curve = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
        found = evaluate_model(options, str(folder / "run" / "final"), HELD)
        return {"p@1": found["p@1"]["value"], "curve": curve}

    told = {"what": "TRL's GRPOTrainer", "options": options.changed(), "held": asdict(HELD)}
    return load_or_compute(folder, told | {"weights": hash_initial_weights(options)}, make)


def swapped(options: TrainOptions, weights: Path, folder: Path) -> dict[str, Any]:
    """p@1 after the model's own rationales, and after the rationales that it wrote for another question.

    Both answers are sampled after a rationale that is fixed: the question's own, or the next question's.
    """

    def make() -> dict[str, Any]:
        tokenizer, model = load_tokenizer(str(weights)), load_model(str(weights))
        format = make_token_format(options, tokenizer)
        examples = load_examples(options, "test", HELD.questions)
        prompts = [tuple(format.prompt_ids(example.prompt)) for example in examples]
        ends, total, answer = [tokenizer.eos_token_id], *options.budget

        def drawn(starts: Sequence[tuple[int, ...]], budget: TokenBudget, number: int) -> list[Any]:
            seed = derive_seed(HELD.seed, number)
            return sample(model, starts, format, budget, stop_tokens=ends, pad=tokenizer.pad_token_id, seed=seed)

        scores: dict[str, list[float]] = {"own": [], "swapped": []}
        for repeat in range(4):
            thought = [r.ids[: r.close_start] for r in drawn(prompts, TokenBudget(total - answer, answer), 3 * repeat)]
            for number, (name, shift) in enumerate((("own", 0), ("swapped", 1)), start=1):
                starts = [p + thought[(i + shift) % len(thought)] for i, p in enumerate(prompts)]
                said = drawn(starts, TokenBudget(0, answer), 3 * repeat + number)
                texts = [format.response_text(r.answer_ids) for r in said]
                scores[name] += [float(t == e.answer) for t, e in zip(texts, examples, strict=True)]
        return {name: asdict(mean_interval(values)) for name, values in scores.items()}

    told = {"what": "swap", "options": options.changed(), "held": asdict(HELD), "weights": hash_weights(weights)}
    return load_or_compute(folder, told, make)


def run(console: Console) -> dict[str, Any]:
    """Every number of the page."""
    torch.set_num_threads(2)
    runs = len(OBJECTIVES) * (len(RATES) + len(SEEDS)) + 3 * len(SEEDS) + 2 * len(DIAL) + 2
    quiet = Console(quiet=True)
    with bars_on(console) as bars:
        bar = bars.add_task("results", total=runs, note="choosing learning rates")
        rates = {objective: chosen_rate(objective, bars, quiet) for objective in OBJECTIVES}

        named: set[str] = set()

        def arm(options: TrainOptions, name: str, trained: bool = True) -> dict[str, Any]:
            assert name not in named, f"two arms are called {name}: one would take the other's folder"
            named.add(name)
            bars.update(bar, note=name)
            folder = FOLDER / "arms" / name
            found = run_variant(Variant(options, trained), folder, HELD, quiet, kept(folder))
            bars.advance(bar)
            return found

        arms = {
            objective: [
                arm(
                    replace(COLD, objective=objective, lr=rates[objective]["rate"], seed=seed),
                    make_folder_name(objective, seed),
                )
                for seed in SEEDS
            ]
            for objective, rate in rates.items()
        }
        bases = {
            "cold": arm(COLD, "base-cold", trained=False),
            "warm": arm(WARM, "base-warm", trained=False),
        }
        warm = [arm(replace(WARM, seed=seed), f"warm-grpo-{seed}") for seed in SEEDS]
        dial = {
            level: {
                objective: arm(
                    replace(COLD, task="pocket-dial", coldness=level, objective=objective),
                    make_folder_name(objective, f"dial{level}"),
                )
                for objective in ("grpo()", "garl(q=0.75)")
            }
            for level in DIAL
        }
        peer = []
        for seed in SEEDS:
            bars.update(bar, note=f"TRL's GRPOTrainer {seed}")
            peer.append(trl_alone(seed, FOLDER / "arms" / f"trl-{seed}"))
            bars.advance(bar)
        garl = "garl(q=0.75)"
        swaps = []
        for seed in SEEDS:
            own, options = FOLDER / "arms" / make_folder_name(garl, seed), replace(COLD, objective=garl, seed=seed)
            weights = own / "run" / "final"
            if not weights.is_dir():  # its numbers were kept, but not its weights
                run_variant(Variant(replace(options, lr=rates[garl]["rate"])), own, HELD, quiet)
            swaps.append(swapped(options, weights, FOLDER / "arms" / f"swap-{seed}"))
            bars.advance(bar)
    return {
        "rates": rates,
        "arms": arms,
        "bases": bases,
        "warm": warm,
        "trl": peer,
        "swaps": swaps,
        "dial": dial,
    }


def write_section(found: Mapping[str, Any]) -> str:
    """The part of docs/results.md about the pocket model, from its text and the numbers."""
    arms = found["arms"]
    likelihoods = [a["p_hat"][0] for results in arms.values() for a in results if a["p_hat"][0] is not None]
    facts = json.loads((pocket.get_model_path("hotpot") / "facts.json").read_text())["measured"]
    text = Template(Path(__file__).with_name("results.md.in").read_text())
    return text.substitute(
        table="\n".join(
            _row(objective, arms[objective], found["rates"][objective]["rate"]) for objective in OBJECTIVES
        ),
        base=_percent(found["bases"]["cold"]["p@1"]),
        base_16=_percent(found["bases"]["cold"]["p@16"]),
        base_m=_percent(found["bases"]["cold"]["m@16"]),
        p0=f"{facts['cold']['p0']:.1e}",
        median=f"{facts['cold']['log10_p']['0.5']:.1f}",
        low=f"{facts['cold']['log10_p']['0.1']:.1f}",
        high=f"{facts['cold']['log10_p']['0.9']:.1f}",
        first=f"{sum(likelihoods) / len(likelihoods):.1f}",
        sweep="\n".join(_sweep_row(objective, found["rates"][objective]) for objective in OBJECTIVES),
        rates=" | ".join(f"{rate:g}" for rate in sorted(RATES)),
        warm_base=_percent(found["bases"]["warm"]["p@1"]),
        warm=_cell(found["warm"], "p@1"),
        climb=f"{100 * (compute_mean_and_range(found['warm'], 'p@1')[0] - found['bases']['warm']['p@1']):.0f}",
        trl=_cell(found["trl"], "p@1"),
        trl_right=f"{sum(map(sum, (arm['curve'] for arm in found['trl']))):.3g}",
        own=_cell([{"p": swap["own"]["value"]} for swap in found["swaps"]], "p"),
        swapped=_cell([{"p": swap["swapped"]["value"]} for swap in found["swaps"]], "p"),
        dial="\n".join(_dial_row(level, found["dial"][level]) for level in DIAL),
        machine=_machine(),
        minutes=f"{_wall(found) / 60:.0f}",
        threads=torch.get_num_threads(),
    )


def _row(objective: str, arms: Sequence[Mapping[str, Any]], rate: float) -> str:
    cells = (_cell(arms, "p@1"), _cell(arms, "p@16"), _cell(arms, "m@16"), f"{rate:g}", _seconds(arms))
    return f"| `{objective}` | {' | '.join(cells)} |"


def _sweep_row(objective: str, found: Mapping[str, Any]) -> str:
    values = (_percent(found["found"][f"{rate:g}"]) for rate in sorted(RATES))
    return f"| `{objective}` | {' | '.join(values)} | {found['rate']:g} |"


def _dial_row(level: int, arms: Mapping[str, Mapping[str, Any]]) -> str:
    facts = json.loads((pocket.get_model_path(f"dial-{level}") / "facts.json").read_text())["measured"]["cold"]
    values = (_percent(arm["p@1"]) for arm in arms.values())
    return f"| dial-{level} | {facts['log10_p']['0.5']:.1f} | {' | '.join(values)} |"


def _cell(arms: Sequence[Mapping[str, Any]], metric: str) -> str:
    mean, low, high = compute_mean_and_range(arms, metric)
    return f"{_percent(mean)} [{_percent(low)}, {_percent(high)}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _seconds(arms: Sequence[Mapping[str, Any]]) -> str:
    return f"{compute_mean_and_range(arms, 'seconds')[0]:.0f}"


def _wall(found: Any) -> float:
    """Seconds that all the results took to make, wherever they stand."""
    if isinstance(found, Mapping):
        return float(found.get("wall", 0.0)) + sum(_wall(value) for value in found.values())
    return sum(map(_wall, found)) if isinstance(found, list) else 0.0


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, torch {torch.__version__}"


def main() -> None:
    """Run what is missing, then write the section and the picture."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    silence_libraries()
    found = run(Console(highlight=False))
    (FOLDER / "rates.json").write_text(json.dumps({name: rate["rate"] for name, rate in found["rates"].items()}))
    insert(PAGE, "pocket", write_section(found))
    plot_curves(found["arms"], PICTURE, "pocket-hotpot, cold prompts, three seeds")


if __name__ == "__main__":
    main()
