"""Measure how cold a model is on its training data, and what that means for GRPO and for every q.

M rationales are sampled for each of some training examples, and the gold answer's likelihood is taken after each. From
these: what GRPO and GARL would see, how long they would need, and which estimator, q and M to train with.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qredit.cli.parser import Parser, add_options, build_options, read_yaml
from qredit.cli.probe_steps import show_steps
from qredit.cli.shared_options import add_shared_options
from qredit.cli.train_command import list_training_fields
from qredit.core.hint import HINT_TEMPLATE, check_template
from qredit.runs.options import POCKET, ROLLOUTS_PER_PROMPT, TrainOptions, check_minimums, option
from qredit.utils.atomic_files import check_new_file, write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.formatting import format_multiple, format_probability, format_share
from qredit.utils.sanitize import escape_control_chars, to_json_line

if TYPE_CHECKING:
    from qredit.engine.answer_after_steps import StepTrack
    from qredit.probe import Advice, Interval, Measurement, Prediction, ProbeSetup
    from qredit.probe.proposal import ProposalVerdict
    from qredit.rollouts.trajectory import Trajectory


@dataclass(frozen=True)
class ProbeOptions:
    """What is probed, and with how many rollouts."""

    model: str = option(
        POCKET, "model folder or id; 'pocket' is the task's own small model, 'smollm2' SmolLM2-135M-Instruct"
    )
    m: int = option(ROLLOUTS_PER_PROMPT, "rollouts per example, and the group size that is predicted for")
    examples: int = option(64, "training examples, in hash order")
    rows_per_batch: int = option(256, "rollouts sampled and scored at once")
    seed: int = option(0, "seed of the rollouts")
    hint_template: str = option(
        HINT_TEMPLATE,
        "prompt that shows the gold answer, with {prompt} and {answer}: tried where plain rationales say nothing",
    )

    steps: str | None = option(
        None,
        "what ends a step of a rationale, blank_lines or sentences: shows how unsure the gold answer is after each",
        *("blank_lines", "sentences"),
    )

    def __post_init__(self) -> None:
        check_minimums(self, {"m": 2, "examples": 1, "rows_per_batch": 1, "seed": 0})
        check_template(self.hint_template)


def add_arguments(parser: Parser) -> None:
    """The options of the probe, then those it shares with training."""
    parser.add_argument("--config", metavar="FILE", help="YAML file of a run, such as a recipe; flags win over it")
    parser.add_argument("--details", action="store_true", help="show likelihoods and the table of every q, too")
    parser.add_argument(
        "--per-prompt", metavar="FILE", help="write what was measured of each example there, for `qredit train --keep`"
    )
    add_options(parser, ProbeOptions, "probe")
    add_shared_options(parser, "reward")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Measure, predict, advise; show it.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    own = set(ProbeOptions.__dataclass_fields__)
    config, details, file = given.pop("config", None), given.pop("details", False), given.pop("per_prompt", None)
    if file is not None:
        check_new_file(Path(file), "the numbers of each example", "--per-prompt")
    planned = {} if config is None else read_yaml(config)
    shared = {name: value for name, value in given.items() if name not in own - {"model"}}
    options = build_options(TrainOptions, [(str(config), planned), ("the command line", shared)], list_training_fields)
    sizes: dict[str, Any] = {name: planned[name] for name in ("m", "seed") if name in planned}
    both = {**sizes, **given, "model": options.model}
    asked = build_options(ProbeOptions, [(config or "the command line", {k: v for k, v in both.items() if k in own})])
    from qredit.probe import load, measure, predict, recommend, summary
    from qredit.probe.measure import make_prompt_rows
    from qredit.probe.recommend import Case, advise_proposal
    from qredit.probe.steps import summarize_tracks, track_steps
    from qredit.runs.progress_bars import make_progress_bars as bars_on

    if asked.steps is not None and (options.env is not None or options.tools is not None):
        raise QreditError("steps are those of one rationale; leave them out with env or tools")
    subject = load(options, asked.examples)
    tracks: list[StepTrack] = []

    def observe(rollouts: "Sequence[Trajectory]") -> None:
        if asked.steps is not None:
            tracks.extend(track_steps(subject, rollouts, asked.steps))

    with bars_on(progress) as bars:
        bar = bars.add_task("probe", total=len(subject.examples), note="")
        measured = measure(
            subject,
            asked.m,
            asked.seed,
            asked.rows_per_batch,
            lambda count: bars.update(bar, completed=count),
            observe,
        )
    predicted = predict(measured.log_w, measured.right, score=measured.score, total=measured.total)
    given_advice = recommend(predicted, float(measured.forced.double().mean()))
    notices = list(summary.list_probe_notices(subject, measured, predicted))
    verdict = _try_proposal(subject, asked) if given_advice.case is Case.UNREACHABLE else None
    if verdict is not None:
        notices.append(summary.describe_proposal(verdict))
        if verdict.helps:
            given_advice = advise_proposal(given_advice, verdict.q, asked.m, asked.hint_template)
    is_cold = given_advice.case in (Case.COLD, Case.SINGLE)
    is_chat = bool(subject.tokens.tokenizer.chat_template) and options.chat is not False
    if is_cold and is_chat and options.few_shot is None:
        notices.append(summary.WORKED_EXAMPLES)
    if is_cold and subject.player is None:  # nothing is shown of episodes
        notices.append(summary.FINE_TUNING)
    shown = (
        []
        if measured.right.any()
        else summary.format_rejected(
            [example.gold for example in subject.examples], measured.said, measured.right.tolist()
        )
    )
    _show(f"{asked.model}: {options.task} {options.style}", predicted, given_advice, notices, shown, details, out)
    summaries = [] if asked.steps is None else summarize_tracks(tracks, measured.right.flatten().tolist())
    if summaries:
        show_steps(summaries, out)
    if file is not None:
        write_text_atomic(Path(file), "".join(map(to_json_line, make_prompt_rows(subject, measured))))
        out.print(f"per prompt: {escape(escape_control_chars(file))}", soft_wrap=True)
    record = _record(asked, options, measured, predicted, given_advice, notices)
    return {
        **record,
        "proposal": _plain(None if verdict is None else asdict(verdict)),
        "steps": _plain([asdict(one) for one in summaries]),
        "per_prompt": file,
        "shown": shown,
    }


def _try_proposal(subject: "ProbeSetup", asked: ProbeOptions) -> "ProposalVerdict | None":
    """What hinted rationales are worth; None with episodes, and where groups are too small to hold two of each kind."""
    from qredit.probe.proposal import judge_proposal, measure_proposal

    if asked.m < 4 or subject.player is not None:  # episodes are played behind plain prompts
        return None
    return judge_proposal(measure_proposal(subject, asked.m, asked.seed, asked.hint_template, asked.rows_per_batch))


def _record(
    asked: ProbeOptions,
    options: TrainOptions,
    measured: "Measurement",
    predicted: "Prediction",
    advice: "Advice",
    notices: Sequence[str],
) -> Mapping[str, Any]:
    """Everything, for JSON; what is no number there (infinite, not a number) is null."""
    from qredit.probe import summary
    from qredit.probe.recommend import is_graded

    told: dict[str, Any] = _plain(
        {
            **asdict(asked),
            "task": options.task,
            "style": options.style,
            "forced": float(measured.forced.double().mean()),
            "ended": float(measured.ended.double().mean()),
            "log_w": measured.log_w.tolist(),
            "right": measured.right.tolist(),
            "predicted": {
                **asdict(predicted),
                "success": _in_logs(predicted.success),
                "p_hat": _in_logs(predicted.p_hat),
                "mixed": predicted.mixed,
                "graded": is_graded(predicted),
            },
            "advice": {
                "estimator": advice.estimator,
                "objective": advice.objective,
                "q": advice.start,
                "m": advice.m,
                "case": advice.case.name.lower(),
                "firm": advice.firm,
                "reads": summary.describe_reward_check(predicted, advice),
                "sentences": summary.describe_advice(predicted, advice),
            },
            "notices": list(notices),
        }
    )
    return told


def _in_logs(of: "Interval") -> Mapping[str, float]:
    return {"log10": of.value, "low": of.low, "high": of.high}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(
    title: str,
    predicted: "Prediction",
    advice: "Advice",
    notices: Sequence[str],
    shown: Sequence[str],
    details: bool,
    out: Console,
) -> None:
    """Whether the reward reads anything, the advice, then what it rests on; the table of every q only if wanted."""
    from qredit.probe import summary

    size = f"{predicted.examples} examples × {predicted.rollouts}"
    out.print(f"[bold]{escape(escape_control_chars(title))}[/bold], {size} rollouts", soft_wrap=True)
    for line in filter(
        None, (summary.describe_reward_check(predicted, advice), *shown, summary.warn_too_few(predicted, advice))
    ):
        out.print(escape(escape_control_chars(line)), soft_wrap=True)
    out.print()
    for sentence in summary.describe_advice(predicted, advice):
        out.print(escape(escape_control_chars(sentence)))
    out.print()
    out.print(f"sampled success: {escape(summary.format_interval(predicted.success))}")
    out.print(f"likelihood P̂: {escape(summary.format_interval(predicted.p_hat))}")
    for notice in notices:
        out.print(escape(escape_control_chars(notice)), soft_wrap=True)
    if not details:
        out.print("--details shows p̂ of the examples and the table of every q")
        return
    low, middle, high = map(format_probability, predicted.levels)
    out.print(f"p̂ of an example: median {middle}, middle 80 % {low} to {high}")
    out.print(summary.describe_regime(predicted))
    out.print(_table(predicted))
    out.print(
        "signal: share of groups; reward: a group's largest effective one; times: steps to escape, of those at "
        "q = 1; bias and deviation: of the gradient's length; noise: of its direction, GARL/PAFT. "
        + escape(summary.ASSUMPTIONS)
    )


def _table(predicted: "Prediction") -> Table:

    table = Table(title=f"groups of {predicted.m}", title_justify="left")
    headings = ("signal", "reward", "times", "bias", "deviation", "noise")
    table.add_column("objective")
    for name in headings:
        table.add_column(name, justify="right")
    table.add_row("grpo", format_share(predicted.mixed), *["–"] * 5)
    for one in predicted.of:
        table.add_row(
            f"q = {one.q:g}",
            format_share(one.signal),
            "–" if math.isnan(one.reward) else format_probability(one.reward),
            format_multiple(one.escape),
            format_share(one.bias),
            format_share(one.deviation),
            f"{one.noise:.2g}/{one.noise_paft:.2g}",
        )
    return table
