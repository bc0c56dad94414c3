"""Experiments over several runs: an arm is trained and evaluated once, and its result is kept beside it."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from qredit.control.diagnostics import get_q
from qredit.evaluation.metrics import QuestionResult, summarize
from qredit.rewards.reward_spec import parse_rewards
from qredit.runs.episodes import get_asked_template, get_whole_budget, make_player
from qredit.runs.fields import read_sources
from qredit.runs.load import (
    explain_gold_need,
    find_weights,
    get_stop_tokens,
    is_adapter,
    load_examples,
    load_model,
    load_tokenizer,
    prepare_examples,
)
from qredit.runs.options import TrainOptions
from qredit.runs.quantization import make_quantization_config
from qredit.runs.samplers import make_answer_sampler, parse_vllm
from qredit.runs.sft import finetune
from qredit.runs.train import make_token_format, train
from qredit.runs.warm_start import THEN, WarmStart, start_from
from qredit.samplers.answers import answer_all
from qredit.samplers.vllm.choice import measure_longest
from qredit.tasks.base import Split
from qredit.utils.atomic_files import write_text_atomic
from qredit.utils.errors import QreditError

FACTS_FILE, RESULT_FILE = "arm.json", "result.json"
FORMER_KEYS: Mapping[str, str] = {}
"""Options and facts by the names they had: former name → today's. A renamed option gets a line here, so that results
that were kept under its old name are still found."""


@dataclass(frozen=True)
class EvalSpec:
    """On what a model is evaluated: questions that were not trained on, and samples of each."""

    questions: int = 256
    k: int = 16
    seed: int = 1
    split: Split = "test"


@dataclass(frozen=True)
class Variant:
    """One training run of an experiment, or, not trained, the base model itself.

    Attributes:
        options: the run's.
        trained: whether there is a run.
        warm_start: what the model is shown before it.
    """

    options: TrainOptions
    trained: bool = True
    warm_start: WarmStart | None = None

    @property
    def label(self) -> str:
        """How it is named in tables and plots."""
        if not self.trained:
            return "base model"
        before = "" if self.warm_start is None else f"{self.warm_start}{THEN}"
        return f"{before}{self.options.make_objective()}"


def load_or_compute(
    folder: Path,
    told: Mapping[str, Any],
    make: Callable[[], dict[str, Any]],
    kept: Path | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """The result in a folder if it was made from these very facts, else made anew, in an emptied folder, and kept.

    `wall` is how many seconds it took to make. Facts are compared under today's names (`FORMER_KEYS`).

    Args:
        folder: of the result.
        told: the facts.
        make: computes the result.
        kept: a small file for facts and result, meant for version control: what was measured outlives the machine, and
            is taken from there where the folder is gone. Facts do not know the code, so whoever changes what a method
            computes removes its files.
        resume: leave what an unfinished run of the same facts left in the folder, for `make` to go on from.

    Raises:
        QreditError: the folder holds something else, or cannot be written; nothing of it is touched.
    """
    facts = _use_current_keys(told)
    mark, path = folder / FACTS_FILE, folder / RESULT_FILE
    if path.is_file() and _use_current_keys(_read_json(mark)) == facts:
        return _store_result(kept, facts, _read_json(path))
    stored = None if kept is None else _read_json(kept)
    if isinstance(stored, dict) and _use_current_keys(stored.get("facts")) == facts:
        found: dict[str, Any] = stored["result"]
        return found
    if folder.exists() and not mark.is_file() and any(folder.iterdir()):
        raise QreditError(f"{folder} holds something that is no result of an experiment; give another folder")
    start = time.perf_counter()
    try:
        if not (resume and _use_current_keys(_read_json(mark)) == facts):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(mark, json.dumps(facts, sort_keys=True))
    except OSError as error:
        raise QreditError(f"cannot write to {folder}: {error.strerror}") from None
    result = make()
    result["wall"] = round(time.perf_counter() - start, 1)
    write_text_atomic(path, json.dumps(result))
    return _store_result(kept, facts, result)


def _read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or only the beginning of one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _store_result(path: Path | None, facts: Mapping[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The result, also written to a file of its own if there is to be one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps({"facts": facts, "result": result}, sort_keys=True) + "\n")
    return result


def _use_current_keys(facts: Any) -> Any:
    """Facts as JSON reads them back, every key under today's name."""
    if isinstance(facts, Mapping):
        return {FORMER_KEYS.get(key, key): _use_current_keys(value) for key, value in facts.items()}
    return json.loads(json.dumps(facts, default=str))


def collect_facts(arm: Variant, held: EvalSpec) -> dict[str, Any]:
    """What the result of an arm is made from: two arms with equal facts have equal results."""
    return {
        "options": arm.options.changed(),
        "trained": arm.trained,
        "held": asdict(held),
        "weights": hash_initial_weights(arm.options),
        "device": arm.options.device.type,
        "threads": torch.get_num_threads(),
        **({} if arm.warm_start is None else {"warm_start": arm.warm_start.as_dict()}),
        **_own_facts(arm.options, held),
    }


def run_variant(
    arm: Variant, folder: Path, held: EvalSpec, console: Console, kept: Path | None = None
) -> dict[str, Any]:
    """The result of an arm, from its folder if it is there for these very options, weights and questions.

    Keys: label, objective, q, seed, p@1, p@k, m@k, intervals, steps, seconds (of the training), and per step curve
    (success rate of the training rollouts), p_hat (median log10 p̂, None without a likelihood), entropy and length.

    Args:
        arm: its options and label.
        folder: of its run and result.
        held: which questions, and how many samples of each.
        console: where progress is shown.
        kept: a small file of facts and result, as in `load_or_compute`.
    """

    def make() -> dict[str, Any]:
        start = time.perf_counter()
        final = _train(arm, folder, console) if arm.trained else None
        seconds = time.perf_counter() - start
        found = evaluate_model(arm.options, None if final is None else str(final), held)
        return {
            "label": arm.label,
            "objective": str(arm.options.make_objective()).split("(")[0] if arm.trained else None,
            "q": get_variant_q(arm),
            "seed": arm.options.seed,
            **{name: value["value"] for name, value in found.items()},
            "intervals": found,
            "steps": arm.options.steps if arm.trained else 0,
            "seconds": round(seconds, 1),
            **(read_curves(folder / "run" / "metrics.jsonl") if arm.trained else {}),
        }

    return load_or_compute(folder, collect_facts(arm, held), make, kept)


def _train(arm: Variant, folder: Path, console: Console) -> Path:
    """The final model of an arm's run, in `folder/run`; what it was shown before is in `folder/sft`."""
    options = arm.options
    if arm.warm_start is not None:
        shown = finetune(arm.warm_start.make_options(options), folder / "sft", console)
        options = start_from(options, shown.final)
    return train(options, folder / "run", console).final


def _own_facts(options: TrainOptions, held: EvalSpec) -> dict[str, str]:
    """What a result rests on beside the options where data or rewards are the user's: what is in the files now."""
    found = {}
    if options.data is not None:
        needed = explain_gold_need(options)
        trained = load_examples(options, "train", options.get_subset_size(), needed)
        asked = load_examples(options, held.split, held.questions, needed)
        found["examples"] = sha256(repr((trained, asked)).encode()).hexdigest()
    sources = [reward.source.read_bytes() for reward in parse_rewards(options.rewards) if reward.source is not None]
    if sources:
        found["rewards"] = sha256(b"".join(sources)).hexdigest()
    if makers := read_sources(options):
        found["fields"] = sha256(b"".join(makers)).hexdigest()
    return found


def hash_initial_weights(options: TrainOptions) -> str:
    """SHA-256 of the weights that a run starts from, or the model's id where they are not on this disk."""
    return hash_weights(Path(find_weights(options)))


def hash_weights(path: Path) -> str:
    """SHA-256 of the weights in a folder; the path itself where it holds none."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        return str(path)
    found = sha256()
    for file in files:
        with file.open("rb") as stream:  # in parts: the weights of a large model would fill the memory
            while part := stream.read(1 << 24):
                found.update(part)
    return found.hexdigest()


def get_variant_q(arm: Variant) -> float | None:
    """q of an arm's objective; None for one without."""
    return get_q(arm.options.make_objective().at(0.0)) if arm.trained else None


def evaluate_model(options: TrainOptions, weights: str | None, held: EvalSpec) -> dict[str, dict[str, float]]:
    """p@1, p@k and m@k on held-out questions, with intervals.

    Args:
        options: of the run.
        weights: folder of the trained model; None is the base model.
        held: which questions, and how many samples of each.
    """
    answered = sample_answers(options, weights, held)
    found = summarize(answered, next(iter(answered[0].scores)), held.k)
    return {name: asdict(found[name]) for name in ("p@1", f"p@{held.k}", f"m@{held.k}")}


def sample_answers(options: TrainOptions, weights: str | None, held: EvalSpec) -> list[QuestionResult]:
    """Samples of a model, or of the base model where `weights` is None, on held-out questions.

    Args:
        options: of the run.
        weights: folder of the trained model; None is the base model.
        held: which questions, and how many samples of each.
    """
    path = find_weights(options, weights or None)
    as_trained = make_quantization_config(options) if weights is None or is_adapter(path) else None
    tokenizer, network = load_tokenizer(path), load_model(path, options.device, quantization=as_trained)
    asked = load_examples(options, held.split, held.questions, explain_gold_need(options))
    tokens = make_token_format(options, tokenizer, asked)
    questions = prepare_examples(asked, tokens, network, options, f"{options.task} {held.split}")
    told = [question.prompt for question in questions]
    template, player = get_asked_template(options, told), make_player(options, tokens, told)
    prompts = [tokens.prompt_ids(prompt, **template) for prompt in told]
    longest = measure_longest(prompts, tokens, get_whole_budget(options, tokens))
    sampler = make_answer_sampler(network, tokens, parse_vllm(options), longest, half=options.half)
    return list(
        answer_all(
            sampler,
            tokens,
            questions,
            parse_rewards(options.rewards),
            options.sampling_budget,
            held.k,
            seed=held.seed,
            stop_tokens=get_stop_tokens(network, tokenizer),
            rows_per_batch=512 if options.is_pocket else 64,
            template=template,
            play=None if player is None else player.play,
        )
    )


def read_curves(metrics: Path) -> dict[str, list[float | None]]:
    """What metrics.jsonl says of each step: success rate of its rollouts, median log10 p̂, their entropy and length."""
    entries = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [entry for entry in entries if "reward" in entry]
    return {
        "curve": [e["reward"] for e in steps],
        "p_hat": [e.get("p_hat/log10_q50") for e in steps],
        "entropy": [e["entropy"] for e in entries if "entropy" in e],
        "length": [e["completions/mean_length"] for e in entries if "completions/mean_length" in e],
    }


def compute_mean_and_range(results: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, float, float]:
    """Mean, smallest and largest value of a metric over seeds."""
    values = [result[metric] for result in results]
    return sum(values) / len(values), min(values), max(values)
