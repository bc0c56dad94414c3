"""Sample answers to questions and score them.

p@1 is the mean success of one sample; p@k is unbiased; m@k is majority voting over the k samples, a tie counting its
expectation. Success is a reward of 1 or more, by the reward of training (its first one, where there are several) or by
--metric. Intervals are 95 % bootstraps over questions, exact ones where all questions have the same value; --against
asks another model the same questions, and shows the difference. --select chooses one of the k samples by a rule, such
as weighted_majority(answer_logp()) or gen_select(local(model='smollm2')), and shows it beside the majority of the same
samples. --decode has the samples drawn by a rule, such as budget_forcing() or begin_with('[Easy]'), and shows them
beside those without it (docs/selection.md).
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qredit import tasks
from qredit.cli.eval_selection import record_outcome, show_outcomes
from qredit.cli.parser import Parser, add_options, build_options, read_yaml
from qredit.cli.shared_options import (
    FOUR_BIT_OPTIONS,
    SHARED_OPTIONS,
    TEMPLATE_OPTIONS,
    add_shared_options,
    list_template_options,
    split_sources,
)
from qredit.rewards.reward_spec import parse_reward_names
from qredit.runs.options import OWN_COLUMNS, OWN_WORDING, POCKET, TrainOptions, check_minimums, option
from qredit.tasks import Example
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import escape_control_chars

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qredit.evaluation.metrics import QuestionResult
    from qredit.rewards.reward_spec import Reward
    from qredit.rollouts.format import TokenFormat
    from qredit.samplers.decoding.protocol import Decoding
    from qredit.samplers.protocol import Sampler
    from qredit.selection.outcome import Outcome
    from qredit.selection.protocol import Selection
    from qredit.stats.interval import Interval


@dataclass(frozen=True)
class EvalOptions:
    """What is evaluated, on what, and how. Options that a run folder holds are taken from it when not given."""

    model: str = option(
        POCKET,
        "run folder, model folder or id; 'pocket' is the task's own small model, 'smollm2' SmolLM2-135M-Instruct",
    )
    against: str | None = option(None, "another of these, which is asked the same questions in the same way")
    split: str = option("test", "which examples", "train", "validation", "test")
    k: int | None = option(None, "samples per question; default: 16, or 1 at temperature 0")
    limit: int | None = option(None, "number of questions, in hash order; default: all")
    temperature: float = option(1.0, "sampling temperature; 0 is greedy")
    metric: str | None = option(None, "scorer or function that p@k and m@k count by; default: the reward of training")
    rows_per_batch: int = option(256, "samples drawn at once")
    seed: int = option(0, "seed of the samples")
    select: tuple[str, ...] = dataclass_field(
        default=(),
        metadata={
            "help": "rule that chooses one of the k samples, as RULE(…), once for each: majority(), "
            "weighted_majority(SCORE), best_of(SCORE), pairwise(JUDGE), gen_select(JUDGE); see docs/selection.md",
            "repeats": True,
        },
    )
    decode: str | None = option(
        None,
        "rule that draws the samples, as RULE(…): begin_with(TEXT), budget_forcing(), by_difficulty(…); shown beside "
        "those without it",
    )

    def __post_init__(self) -> None:
        check_minimums(self, {"k": 1, "limit": 1, "rows_per_batch": 1, "seed": 0})
        if not 0 <= self.temperature < math.inf:
            raise QreditError(f"temperature must be 0 or more, got {self.temperature}")
        if self.temperature == 0 and self.samples > 1:
            raise QreditError(f"temperature 0 draws one and the same answer {self.k} times; leave out k, or give k=1")
        if self.metric is not None and len(parse_reward_names(self.metric)) > 1:
            raise QreditError(f"metric must be one scorer or function, got '{self.metric}'")
        if len(set(self.select)) < len(self.select):
            raise QreditError(f"select names a rule twice: {', '.join(self.select)}")
        for rule in self.rules.values():
            rule.check_size(self.samples)
        if self.decoding is not None:
            self.decoding.check_size(self.samples)
            if self.against is not None:
                raise QreditError("decode compares a model with itself; leave out against")

    @property
    def rules(self) -> "Mapping[str, Selection]":
        """The rules of selection, by their text."""
        if not self.select:
            return {}
        from qredit.selection.parsing import parse_selection  # here, for it loads torch

        return {text: parse_selection(text) for text in self.select}

    @property
    def decoding(self) -> "Decoding | None":
        """The rule that draws."""
        if self.decode is None:
            return None
        from qredit.samplers.decoding.parsing import parse_decoding

        return parse_decoding(self.decode)

    @property
    def samples(self) -> int:
        """Samples per question."""
        return self.k if self.k is not None else 16 if self.temperature else 1


def add_arguments(parser: Parser) -> None:
    """The options of the evaluation, then those it shares with training."""
    parser.add_argument("--samples", metavar="FILE", help="write every sample there, as JSON lines")
    add_options(parser, EvalOptions, "evaluation")
    add_shared_options(parser, "reward")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Evaluate, one model or two, and show a table for each.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    written = given.pop("samples", None)
    own, ((_, shared),) = split_sources([("the command line", given)], EvalOptions, (*SHARED_OPTIONS, "reward"))
    asked = build_options(EvalOptions, own)
    weights, options, trained = _model_and_options(asked, shared)
    quiz = _prepare_setup(asked, options, trained)
    path = Path(written) if written is not None else _free_name(asked)
    for rule in asked.rules.values():
        rule.check_model()
    models = {asked.model: weights}
    if asked.against is not None:
        models[asked.against] = _find_weights(asked.against)[0]
        if len(models) == 1:
            raise QreditError(f"against must be another model than {asked.model}")
    also = "against" if asked.decode is None else "decode"
    files = [path, path and path.with_name(f"{path.stem}-{also}{path.suffix}")]
    for file in files[: len(models) + (asked.decode is not None)]:
        if file is not None and file.exists():
            raise QreditError(f"samples file {file} exists already; give another name")
    subjects = [
        _check_model(name, weights, file, quiz) for (name, weights), file in zip(models.items(), files, strict=False)
    ]
    if asked.decoding is not None:
        asked.decoding.check_layout(subjects[0].tokens, options.sampling_budget)
        shown = f"{asked.model} by {asked.decode}"
        subjects.append(replace(subjects[0], name=shown, samples=files[1], decoding=asked.decoding))
    by_weights = itertools.groupby(subjects, lambda one: one.path)
    results = [one for path, same in by_weights for one in _evaluate_model(path, list(same), asked, quiz, progress)]
    for result in results:
        _show(result, asked, quiz, out)
    record = {**_facts(asked, quiz), **results[0].record()}
    if len(results) == 2:
        from qredit.evaluation.metrics import compare_results

        one, other = results if asked.decode is None else reversed(results)
        found, shared_by = compare_results(one.answered, other.answered, quiz.scorer, asked.samples)
        title = f"{one.subject.name} less {other.subject.name}: {quiz.called}, {shared_by} questions of both"
        _show_difference(title, found, out)
        told = {name: asdict(estimate) for name, estimate in found.items()}
        record |= {also: {**results[1].record(), "questions_of_both": shared_by, "difference": told}}
    return record


@dataclass(frozen=True)
class _EvalSetup:
    """What every model is asked, how, and who judges: all that does not depend on the model.

    Attributes:
        rewards: the first one decides what a success is.
        rows_of: the file that the questions are rows of; None where they are a split.
        seen: how many of them the run was trained on; None where that cannot be known.
        notes: what has to be said about how they were read.
        called: what they are truthfully called.
    """

    options: TrainOptions
    examples: Sequence[Example]
    rewards: "Sequence[Reward]"
    rows_of: str | None
    seen: int | None
    notes: tuple[str, ...]
    called: str

    @property
    def scorer(self) -> str:
        """The name of the reward that decides."""
        return self.rewards[0].name

    @property
    def template(self) -> Mapping[str, Any]:
        """Switches of the chat template."""
        return self.options.template


@dataclass(frozen=True)
class _Candidate:
    """A model that can be loaded, where its samples go, and what draws them where something does."""

    name: str
    path: str
    tokens: "TokenFormat"
    samples: Path | None
    decoding: "Decoding | None" = None


@dataclass(frozen=True)
class _Result:
    """What one model answered.

    Attributes:
        skipped: how many prompts were too long for its context.
        unparseable: how many gold answers the first reward cannot read.
        notices: what has to be said.
        outcomes: of the rules of selection.
    """

    subject: _Candidate
    answered: "Sequence[QuestionResult]"
    found: "Mapping[str, Interval]"
    skipped: int
    unparseable: int
    notices: Sequence[str]
    outcomes: "Sequence[Outcome]"

    @property
    def tokens_per_sample(self) -> float:
        """The mean number of tokens that were sampled for one."""
        return sum(one.tokens for one in self.answered) / max(sum(len(one.predictions) for one in self.answered), 1)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.subject.name,
            "questions": len(self.answered),
            "tokens_per_sample": self.tokens_per_sample,
            "skipped": self.skipped,
            "unparseable_golds": self.unparseable,
            "metrics": {name: asdict(estimate) for name, estimate in self.found.items()},
            "notices": list(self.notices),
            "samples": None if self.subject.samples is None else str(self.subject.samples),
            "selection": {one.rule: record_outcome(one) for one in self.outcomes},
        }


def _facts(asked: EvalOptions, quiz: _EvalSetup) -> dict[str, Any]:
    return {
        "task": quiz.options.task,
        "style": quiz.options.style,
        "split": asked.split if quiz.rows_of is None else None,
        "rows_of": quiz.rows_of,
        "trained_on": quiz.seen,
        "k": asked.samples,
        "scorer": quiz.scorer,
    }


def _free_name(asked: EvalOptions) -> Path | None:
    """Where samples go by themselves: into the run's folder, under a name that is free; None for a mere model."""
    folder = Path(asked.model).expanduser()
    if not (folder / "config.yaml").is_file():
        return None
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    names = (folder / f"eval-{asked.split}{number}.jsonl" for number in numbers)
    return next(name for name in names if not name.exists())


def _find_weights(model: str) -> tuple[str, Path | None]:
    """The weights that a run folder, its final model or any other name stands for, and the run's options if any."""
    folder = Path(model).expanduser()
    for run_folder, weights in ((folder, folder / "final"), (folder.parent, folder)):
        if (run_folder / "config.yaml").is_file() and weights.is_dir():
            return str(weights), run_folder / "config.yaml"
    return model, None


def _model_and_options(asked: EvalOptions, shared: Mapping[str, Any]) -> tuple[str, TrainOptions, TrainOptions | None]:
    """The weights, and the options: those of the run that the weights come from, with what is given on top.

    Last, if they come from a run: the options that say which examples it was trained on.

    Raises:
        QreditError: the run's data is one file, which it was trained on, and no other is given.
    """
    weights, config = _find_weights(asked.model)
    if config is None:
        return (
            weights,
            build_options(TrainOptions, [("the command line", {**shared, "model": weights})], list_template_options),
            None,
        )
    taken = (*SHARED_OPTIONS, *TEMPLATE_OPTIONS, "model", "reward")
    from qredit.runs.load import is_single_file
    from qredit.runs.train_overlap import SUBSET_OPTIONS

    kept = read_yaml(str(config))
    stored = {key: value for key, value in kept.items() if key in taken}
    if shared.get("task", kept.get("task")) != kept.get("task"):  # another task's columns and words
        stored = {k: value for k, value in stored.items() if k not in (*OWN_COLUMNS, *OWN_WORDING, "passages")}
    if not (Path(weights) / "adapter_config.json").is_file():  # merged: what the four bits stood for is in the weights
        stored = {key: value for key, value in stored.items() if key not in FOUR_BIT_OPTIONS}
    chose = {key: value for key, value in kept.items() if key in (*taken, *SUBSET_OPTIONS)}
    trained = build_options(TrainOptions, [(str(config), chose)], list_template_options)
    if asked.split != "train" and "data" not in shared and is_single_file(trained):
        raise QreditError(
            f"the run was trained on {trained.data}; give --data with questions that were held out, or --split train"
        )
    options = build_options(TrainOptions, [(str(config), stored), ("the command line", shared)], list_template_options)
    return weights, options, trained


def _prepare_setup(asked: EvalOptions, options: TrainOptions, trained: TrainOptions | None) -> _EvalSetup:
    """The questions and those who judge the answers; no model is loaded."""
    from qredit.rewards.reward_spec import choose_eval_rewards, parse_rewards

    rewards = parse_rewards(options.rewards)
    if asked.metric is not None:
        first = parse_rewards(asked.metric)
        rewards = (*first, *(reward for reward in rewards if reward.name != first[0].name))
    from qredit.engine.gold_reader import find_gold_reward
    from qredit.runs.load import is_single_file, load_data
    from qredit.runs.quantization import check_four_bit
    from qredit.runs.samplers import parse_vllm
    from qredit.runs.train_overlap import count_trained_on, describe_questions

    engine = parse_vllm(options)
    if asked.decoding is not None:
        _check_decoding(asked.decoding, options, engine is not None)
    check_four_bit(options, lora=True)

    needed = find_gold_reward(reward.function for reward in rewards)
    data = load_data(options, asked.split, asked.limit, needed)  # type: ignore[arg-type]
    for reward in rewards:
        reward.check(data.examples)
    rows_of = str(options.data) if options.task == "jsonl" and is_single_file(options) else None
    seen = count_trained_on(data.examples, options, trained)
    return _EvalSetup(
        options=options,
        examples=data.examples,
        rewards=choose_eval_rewards(rewards, tasks.get(options.task).metrics, data.examples),
        rows_of=rows_of,
        seen=seen,
        notes=data.notes,
        called=describe_questions(asked.split, rows_of, asked.limit is None, len(data.examples), seen),
    )


def _check_decoding(rule: "Decoding", options: TrainOptions, vllm: bool) -> None:
    """Refuse a rule of decoding where it cannot be followed.

    Args:
        rule: what draws.
        options: of the run.
        vllm: whether an engine of vLLM draws.

    Raises:
        QreditError: episodes of several turns, or several temperatures of one engine.
    """
    if options.env is not None or options.tools is not None:
        raise QreditError(f"decode: {rule} draws rollouts of one turn, not episodes with env or tools")
    if vllm and rule.temperatures:
        raise QreditError(f"decode: {rule} draws at several temperatures, an engine of vLLM at one; leave out use_vllm")


def _check_model(name: str, weights: str, samples: Path | None, quiz: _EvalSetup) -> _Candidate:
    """A model of that name, as far as it can be checked without loading it."""
    from qredit.runs.load import find_weights, load_tokenizer
    from qredit.runs.train import make_token_format

    path = find_weights(quiz.options, weights)
    return _Candidate(name, path, make_token_format(quiz.options, load_tokenizer(path), quiz.examples), samples)


def _evaluate_model(
    path: str, subjects: Sequence[_Candidate], asked: EvalOptions, quiz: _EvalSetup, progress: Console
) -> list[_Result]:
    """A model's answers to all questions that fit its context, of each that has its weights.

    It is kept in memory no longer than that.
    """
    from qredit.runs.load import load_model, prepare_examples
    from qredit.runs.quantization import make_quantization_config

    options, tokens = quiz.options, subjects[0].tokens
    network = load_model(path, options.device, quantization=make_quantization_config(options))
    questions = prepare_examples(quiz.examples, tokens, network, options, f"{options.task} {asked.split}")
    return [_ask(subject, network, questions, asked, quiz, progress) for subject in subjects]


def _ask(
    subject: _Candidate,
    network: "PreTrainedModel",
    questions: Sequence[Example],
    asked: EvalOptions,
    quiz: _EvalSetup,
    progress: Console,
) -> _Result:
    """What a loaded model answers, drawn as `subject` says."""
    from qredit.evaluation.metrics import summarize

    stream = _sample_answers(asked, quiz, subject, network, questions, progress)
    answered = list(stream) if subject.samples is None else _write_while_sampling(stream, subject.samples)
    return _Result(
        subject,
        answered,
        summarize(answered, quiz.scorer, asked.samples),
        skipped=len(quiz.examples) - len(questions),
        unparseable=len(quiz.rewards[0].unparseable(questions)),
        notices=_notices(subject, network, quiz, answered),
        outcomes=_select(asked, quiz, questions, answered, progress),
    )


def _select(
    asked: EvalOptions,
    quiz: _EvalSetup,
    questions: Sequence[Example],
    answered: "Sequence[QuestionResult]",
    progress: Console,
) -> "list[Outcome]":
    """What each rule of selection makes of the samples."""
    if not asked.rules:
        return []
    from qredit.rewards.judge.endpoint import show_prompt
    from qredit.selection.outcome import evaluate_selection, read_samples

    samples = read_samples(answered, [show_prompt(question.prompt) for question in questions], quiz.scorer)
    found = []
    for text, rule in asked.rules.items():
        with progress.status(f"select: {escape(escape_control_chars(text))}"):
            found.append(evaluate_selection(text, rule, samples, asked.seed))
    return found


def _sample_answers(
    asked: EvalOptions,
    quiz: _EvalSetup,
    subject: _Candidate,
    network: "PreTrainedModel",
    questions: Sequence[Example],
    progress: Console,
) -> "Iterator[QuestionResult]":
    """The questions as they are answered, under a bar."""
    from qredit.evaluation.metrics import get_voting_scorer
    from qredit.rollouts.sampling_params import SamplingParams
    from qredit.runs.episodes import get_asked_template, get_whole_budget, make_player
    from qredit.runs.load import get_stop_tokens
    from qredit.runs.progress_bars import make_progress_bars as bars_on
    from qredit.runs.samplers import make_answer_sampler, parse_vllm
    from qredit.samplers.answers import Play, answer_all
    from qredit.samplers.decoding.protocol import DecodingTools
    from qredit.samplers.vllm.choice import measure_longest

    tokenizer: Any = subject.tokens.tokenizer
    told = [question.prompt for question in questions]
    template, player = get_asked_template(quiz.options, told), make_player(quiz.options, subject.tokens, told)
    prompts = [subject.tokens.prompt_ids(prompt, **template) for prompt in told]
    longest = measure_longest(prompts, subject.tokens, get_whole_budget(quiz.options, subject.tokens))

    def make_sampler_at(temperature: float) -> "Sampler":
        return make_answer_sampler(
            network,
            subject.tokens,
            parse_vllm(quiz.options),
            longest,
            draw=SamplingParams(temperature=temperature),
            half=quiz.options.half,
        )

    play: Play | None = None if player is None else player.play
    if subject.decoding is not None:
        scorer = get_voting_scorer(quiz.scorer)
        budget = quiz.options.sampling_budget
        play = subject.decoding.make_play(DecodingTools(subject.tokens, budget, scorer, make_sampler_at))
    with bars_on(progress) as bars:
        bar = bars.add_task("eval", total=len(questions), note="")
        for question in answer_all(
            make_sampler_at(asked.temperature),
            subject.tokens,
            questions,
            quiz.rewards,
            quiz.options.sampling_budget,
            asked.samples,
            seed=asked.seed,
            stop_tokens=get_stop_tokens(network, tokenizer),
            rows_per_batch=asked.rows_per_batch,
            template=template,
            play=play,
        ):
            yield question
            bars.advance(bar)


def _notices(
    subject: _Candidate, network: "PreTrainedModel", quiz: _EvalSetup, answered: Sequence["QuestionResult"]
) -> list[str]:
    """What has to be said of the end of the answers, and of golds that were written and not counted."""
    from qredit.rollouts.answer_end import describe_end_conflict, describe_unended_answers, get_eos_token_ids
    from qredit.runs.eval_hints import suggest_fixes

    share = 1 - sum(one.ended for one in answered) / max(sum(len(one.predictions) for one in answered), 1)
    told = (
        describe_end_conflict(subject.tokens, get_eos_token_ids(network), quiz.template),
        describe_unended_answers(share, subject.tokens.format.end),
    )
    return [*suggest_fixes(answered, quiz.scorer), *(notice for notice in told if notice is not None)]


def _write_while_sampling(stream: "Iterable[QuestionResult]", path: Path) -> "list[QuestionResult]":
    """The answers, each written to a new file as it comes.

    Raises:
        QreditError: the file cannot be written; said before the first answer is sampled.
    """
    from qredit.evaluation.metrics import write_samples

    answered: list[QuestionResult] = []

    def passed() -> "Iterator[QuestionResult]":
        for question in stream:
            answered.append(question)
            yield question

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_samples(path, passed())
    except OSError as error:
        raise QreditError(f"cannot write to {path}: {error.strerror}") from None
    return answered


def _show(result: _Result, asked: EvalOptions, quiz: _EvalSetup, out: Console) -> None:
    from qredit.runs.eval_hints import format_samples

    options, count = quiz.options, len(result.answered)
    title = f"{result.subject.name}: {options.task} {options.style}, {quiz.called}, {count} questions × {asked.samples}"
    out.print(_table(title, result.found, lambda value: f"{100 * value:.1f}"))
    first = (
        ", the first of the rewards" if asked.metric is None and len(parse_reward_names(options.rewards)) > 1 else ""
    )
    out.print(f"p@k and m@k count success by {escape(quiz.scorer)}{first}; a tie in m@k counts its expectation")
    if asked.decode is not None:
        out.print(f"{result.tokens_per_sample:.1f} tokens sampled for one sample")
    if result.outcomes:
        show_outcomes(result.outcomes, asked.samples, out)
    for line in format_samples(result.answered, quiz.scorer):
        out.print(escape(escape_control_chars(line)), soft_wrap=True)
    for notice in (*quiz.notes, *result.notices):
        out.print(escape(escape_control_chars(notice)), soft_wrap=True)
    if result.skipped:
        out.print(f"{result.skipped} prompts were too long for the context and are left out")
    if result.unparseable:
        out.print(f"{result.unparseable} gold answers cannot be read by {escape(quiz.scorer)}; they count as failures")
    if result.subject.samples is not None:
        out.print(f"samples: {escape(escape_control_chars(str(result.subject.samples)))}", soft_wrap=True)


def _show_difference(title: str, found: "Mapping[str, Interval]", out: Console) -> None:
    """The differences of two evaluations.

    Args:
        title: which is compared with which.
        found: by metric.
        out: where they are shown.
    """
    out.print(_table(title, found, lambda value: f"{100 * value:+.1f}"))
    out.print("a difference in points; its interval redraws questions, each with both sets of answers")


def _table(title: str, found: "Mapping[str, Interval]", shown: Callable[[float], str]) -> Table:
    table = Table(title=escape(escape_control_chars(title)), title_justify="left")
    table.add_column("metric")
    table.add_column("%", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, estimate in found.items():
        table.add_row(escape(name), shown(estimate.value), f"{shown(estimate.low)} – {shown(estimate.high)}")
    return table
