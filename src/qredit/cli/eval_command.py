"""Sample answers to questions and score them.

p@1 is the mean success of one sample; p@k is unbiased; m@k is majority voting over the k samples, a tie counting its
expectation. Intervals are 95 % bootstraps over questions, exact ones where all questions have the same value.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qredit import rewards, tasks
from qredit.cli.asking import SHARED, TEMPLATE, add_shared, template_options
from qredit.cli.options import Parser, add_options, build, read_yaml
from qredit.errors import QreditError
from qredit.plain import visible
from qredit.run.options import OWN_COLUMNS, OWN_WORDING, POCKET, TrainOptions, check_least, option
from qredit.tasks import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qredit.evaluate import Answered, Estimate
    from qredit.rollout.format import TokenFormat
    from qredit.rollout.sample import Budget


@dataclass(frozen=True)
class EvalOptions:
    """What is evaluated, on what, and how. Options that a run folder holds are taken from it when not given."""

    model: str = option(POCKET, "run folder, model folder or id; 'pocket' is the task's own small model")
    split: str = option("test", "which examples", "train", "validation", "test")
    k: int = option(16, "samples per question")
    limit: int | None = option(None, "number of questions, in hash order; default: all")
    temperature: float = option(1.0, "sampling temperature; 0 is greedy")
    metric: str | None = option(None, "scorer that p@k and m@k count by; default: the task's first")
    rows_per_batch: int = option(256, "samples drawn at once")
    seed: int = option(0, "seed of the samples")

    def __post_init__(self) -> None:
        check_least(self, {"k": 1, "limit": 1, "rows_per_batch": 1, "seed": 0})
        if not 0 <= self.temperature < math.inf:
            raise QreditError(f"temperature must be 0 or more, got {self.temperature}")
        if self.metric is not None:
            rewards.get(self.metric)


def add_arguments(parser: Parser) -> None:
    """The options of the evaluation, then those it shares with training."""
    parser.add_argument("--samples", metavar="FILE", help="write every sample there, as JSON lines")
    add_options(parser, EvalOptions, "evaluation")
    add_shared(parser)


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Evaluate and show a table."""
    samples = given.pop("samples", None)
    if samples is not None and Path(samples).exists():
        raise QreditError(f"samples file {samples} exists already; give another name")
    own = {f.name for f in fields(EvalOptions)}
    asked = build(EvalOptions, [("the command line", {k: v for k, v in given.items() if k in own})])
    shared = {name: value for name, value in given.items() if name not in own}
    model, options, trained = _model_and_options(asked, shared)
    samples = samples or _free_name(asked)
    subject = _subject(asked, options, model, trained)
    stream = _answers(asked, subject, progress)
    answered = list(stream) if samples is None else _kept(stream, Path(samples))
    scorer = subject.scorers[0]
    from qredit.evaluate import summary

    found = summary(answered, scorer, asked.k)
    _show(found, asked, options, subject.asked_of, len(answered), scorer, out)
    for note in subject.notes:
        out.print(escape(visible(note)), soft_wrap=True)
    if subject.skipped:
        out.print(f"{subject.skipped} prompts were too long for the context and are left out")
    if subject.unparseable:
        out.print(f"{subject.unparseable} gold answers cannot be read by {scorer}; they count as failures")
    for notice in _notices(subject, answered):
        out.print(escape(visible(notice)), soft_wrap=True)
    if samples is not None:
        out.print(f"samples: {escape(visible(samples))}", soft_wrap=True)
    return {
        "model": asked.model,
        "task": options.task,
        "style": options.style,
        "split": asked.split if subject.rows_of is None else None,
        "rows_of": subject.rows_of,
        "trained_on": subject.seen,
        "questions": len(answered),
        "skipped": subject.skipped,
        "unparseable_golds": subject.unparseable,
        "k": asked.k,
        "scorer": scorer,
        "metrics": {name: asdict(estimate) for name, estimate in found.items()},
        "samples": samples,
    }


@dataclass(frozen=True)
class _Subject:
    """What is evaluated: a model, how it is asked, what it is asked, and who judges."""

    network: "PreTrainedModel"
    tokens: "TokenFormat"
    budget: "Budget"
    template: Mapping[str, Any]
    questions: Sequence[Example]
    rows_of: str | None
    seen: int | None
    notes: tuple[str, ...]
    asked_of: str
    skipped: int
    unparseable: int
    scorers: tuple[str, ...]
    half: bool


def _notices(subject: _Subject, answered: Sequence["Answered"]) -> list[str]:
    """What has to be said of the end of the answers."""
    from qredit.rollout.ends import end_notice, generation_ends, unended_notice

    share = 1 - sum(one.ended for one in answered) / max(sum(len(one.predictions) for one in answered), 1)
    told = (
        end_notice(subject.tokens, generation_ends(subject.network), subject.template),
        unended_notice(share, subject.tokens.format.end),
    )
    return [notice for notice in told if notice is not None]


def _free_name(asked: EvalOptions) -> str | None:
    """Where samples go by themselves: into the run's folder, under a name that is free; None for a mere model."""
    folder = Path(asked.model).expanduser()
    if not (folder / "config.yaml").is_file():
        return None
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    names = (folder / f"eval-{asked.split}{number}.jsonl" for number in numbers)
    return str(next(name for name in names if not name.exists()))


def _model_and_options(asked: EvalOptions, shared: Mapping[str, Any]) -> tuple[str, TrainOptions, TrainOptions | None]:
    """The weights, and the options: those of the run that the weights come from, with what is given on top.

    Last, if they come from a run: the options that say which examples it was trained on.

    Raises:
        QreditError: the run's data is one file, which it was trained on, and no other is given.
    """
    model = asked.model
    folder = Path(model).expanduser()
    for run_folder, weights in ((folder, folder / "final"), (folder.parent, folder)):
        config = run_folder / "config.yaml"
        if config.is_file() and weights.is_dir():
            taken = (*SHARED, *TEMPLATE, "model")
            from qredit.run.load import is_file
            from qredit.run.seen import CHOOSING

            kept = read_yaml(str(config))
            stored = {key: value for key, value in kept.items() if key in taken}
            if shared.get("task", "jsonl") != "jsonl":
                stored = {key: value for key, value in stored.items() if key not in (*OWN_COLUMNS, *OWN_WORDING)}
            chose = {key: value for key, value in kept.items() if key in (*taken, *CHOOSING)}
            trained = build(TrainOptions, [(str(config), chose)], template_options)
            if asked.split != "train" and "data" not in shared and is_file(trained):
                raise QreditError(
                    f"the run was trained on {trained.data}; give --data with questions that were held out, or "
                    "--split train"
                )
            options = build(TrainOptions, [(str(config), stored), ("the command line", shared)], template_options)
            return str(weights), options, trained
    return model, build(TrainOptions, [("the command line", {**shared, "model": model})], template_options), None


def _subject(asked: EvalOptions, options: TrainOptions, model: str, trained: TrainOptions | None) -> _Subject:
    """Everything loaded and checked, nothing sampled yet."""
    from qredit.run.load import is_file, load_data, load_model, load_tokenizer, model_path, ready
    from qredit.run.seen import called, trained_on
    from qredit.run.train import token_format

    path = model_path(model, options.task, options.coldness)
    data = load_data(options, asked.split, asked.limit)  # type: ignore[arg-type]
    examples = data.examples
    tokens = token_format(options, load_tokenizer(path), examples)
    network = load_model(path, options.device)
    budget, template = options.sampling_budget, options.training.get("chat_template_kwargs") or {}
    questions = ready(
        examples,
        tokens,
        network,
        budget,
        chat=options.chat,
        skip_long=options.skip_long,
        template=template,
        name=f"{options.task} {asked.split}",
    )
    metrics = tasks.get(options.task).metrics
    scorers = tuple(dict.fromkeys((asked.metric or metrics[0], *metrics)))
    rows_of = str(options.data) if options.task == "jsonl" and is_file(options) else None
    seen = trained_on(examples, options, trained)
    return _Subject(
        network,
        tokens,
        budget,
        template,
        questions,
        rows_of=rows_of,
        seen=seen,
        notes=data.notes,
        asked_of=called(asked.split, rows_of, asked.limit is None, len(examples), seen),
        skipped=len(examples) - len(questions),
        unparseable=len(rewards.unparseable(scorers[0], questions)),
        scorers=scorers,
        half=options.half,
    )


def _answers(asked: EvalOptions, subject: _Subject, progress: Console) -> "Iterator[Answered]":
    """The questions as they are answered, under a bar."""
    from qredit.evaluate import answer_all
    from qredit.rollout.sample import Draw
    from qredit.run.load import stop_tokens
    from qredit.run.watch import progress as bars_on

    tokenizer: Any = subject.tokens.tokenizer
    with bars_on(progress) as bars:
        bar = bars.add_task("eval", total=len(subject.questions), note="")
        for question in answer_all(
            subject.network,
            subject.tokens,
            subject.questions,
            subject.scorers,
            subject.budget,
            asked.k,
            seed=asked.seed,
            stop_tokens=stop_tokens(subject.network, tokenizer),
            pad=tokenizer.pad_token_id,
            draw=Draw(temperature=asked.temperature),
            rows_per_batch=asked.rows_per_batch,
            template=subject.template,
            half=subject.half,
        ):
            yield question
            bars.advance(bar)


def _kept(stream: "Iterable[Answered]", path: Path) -> "list[Answered]":
    """The answers, each written to a new file as it comes.

    Raises:
        QreditError: the file cannot be written; said before the first answer is sampled.
    """
    from qredit.evaluate import write_samples

    answered: list[Answered] = []

    def passed() -> "Iterator[Answered]":
        for question in stream:
            answered.append(question)
            yield question

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_samples(path, passed())
    except OSError as error:
        raise QreditError(f"cannot write to {path}: {error.strerror}") from None
    return answered


def _show(
    found: "Mapping[str, Estimate]",
    asked: EvalOptions,
    options: TrainOptions,
    asked_of: str,
    questions: int,
    scorer: str,
    out: Console,
) -> None:
    title = f"{asked.model}: {options.task} {options.style}, {asked_of}, {questions} questions × {asked.k}"
    table = Table(title=escape(visible(title)), title_justify="left")
    table.add_column("metric")
    table.add_column("%", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, estimate in found.items():
        low, high = 100 * estimate.low, 100 * estimate.high
        table.add_row(name, f"{100 * estimate.value:.1f}", f"{low:.1f} – {high:.1f}")
    out.print(table)
    out.print(f"p@k and m@k count success by {scorer}; a tie in m@k counts its expectation")
