"""`qredit intervene`, without a terminal: from a run's wrong rollouts to rows that fine-tuning imitates."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from qredit.data.completions import CompletionGroup
from qredit.data.corrections import Correction
from qredit.engine.model_limits import get_context_length
from qredit.rewards.judge.endpoint import Question
from qredit.rewards.reward_spec import parse_rewards
from qredit.rollouts.format import is_chat
from qredit.rollouts.tokenizer import digest_vocabulary
from qredit.runs.dpo import check_same_tokenizer
from qredit.runs.folder import RunFolder
from qredit.runs.fresh_rollouts import sample_groups
from qredit.runs.interventions import JudgeProposer, OwnProposer, Setting, correct_rollouts, find_wrong_rollouts
from qredit.runs.load import (
    find_weights,
    get_stop_tokens,
    load_examples,
    load_model,
    load_tokenizer,
    prepare_examples,
)
from qredit.runs.options import TrainOptions
from qredit.runs.progress_bars import make_progress_bars
from qredit.runs.source_run import read_kept_rollouts
from qredit.runs.train import make_token_format
from qredit.samplers.transformers import make_sampler
from qredit.tasks.base import Example
from qredit.tasks.table import read_text_column
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class Interventions:
    """What became of wrong rollouts.

    Attributes:
        rows: one for each that was corrected.
        reasons: why the others give none, by a name in `interventions.REASONS`.
    """

    rows: Sequence[Mapping[str, Any]]
    reasons: Counter[str]


def intervene(
    options: TrainOptions,
    run: Path,
    column: str | None,
    console: Console,
    *,
    rollouts: int | None,
    steps: str,
    judge: Callable[[Sequence[Question]], list[str | None]] | None,
    step_tokens: int,
    tries: int,
    per_prompt: int,
) -> Interventions:
    """The rows of a run's wrong rollouts.

    Args:
        options: model, data, format, reward and seed.
        run: the folder of the run.
        column: of right solutions; None takes the task's own rationales.
        console: where bars are shown.
        rollouts: to sample for each question; None takes those that the run kept.
        steps: what ends a step, a name in `STEPS`.
        judge: names wrong steps and writes others; None is the model.
        step_tokens: that a new step must stay below.
        tries: continuations of each.
        per_prompt: wrong rollouts of a question, at most.

    Raises:
        QreditError: episodes, no solutions, rollouts of another vocabulary, none that is wrong; before the model is
            loaded, where that can be known.
    """
    if options.env or options.tools:
        raise QreditError(
            "a step is replaced in rollouts of one turn; those of this run are episodes with env or tools"
        )
    examples = load_examples(options, "train", options.get_subset_size())
    solutions = read_solutions(options, column, examples)
    reward = parse_rewards(options.rewards)[0]
    reward.check(examples)
    path = find_weights(options, options.model)
    tokenizer = load_tokenizer(path)
    tokens = make_token_format(options, tokenizer, examples)
    source = RunFolder(run)
    groups: list[CompletionGroup] = []
    if rollouts is None:
        groups = read_kept_rollouts(source)
        check_same_tokenizer(source, path, tokenizer)
    model = load_model(path, options.device)
    questions = prepare_examples(examples, tokens, model, options, f"{options.task} train")
    if rollouts is not None:
        groups = sample_groups(options, model, tokens, questions, rollouts, console)
    setting = Setting(
        make_sampler(model, int(tokenizer.pad_token_id), half=options.half),
        *(tokens, options.sampling_budget, get_stop_tokens(model, tokenizer), reward, options.template, steps),
        options.seed,
    )
    wrong = find_wrong_rollouts(groups, questions, solutions, setting, per_prompt)
    if not wrong:
        raise QreditError(f"{options.task}: no rollout of a question with a solution is wrong, by {reward.name}")
    chat = is_chat([one.prompt for one in questions], tokenizer)
    own = OwnProposer(setting, chat, step_tokens, get_context_length(model))
    proposer = own if judge is None else JudgeProposer(judge)
    rows, reasons, vocabulary = [], Counter[str](), digest_vocabulary(tokenizer)
    with make_progress_bars(console) as bars:
        bar = bars.add_task("corrections", total=len(wrong), note="")
        for made in correct_rollouts(wrong, proposer, setting, step_tokens, tries):
            if isinstance(made, Correction):
                rows.append({**made.as_record(), "vocabulary": vocabulary})
            else:
                reasons[made] += 1
            bars.advance(bar)
    return Interventions(rows, reasons)


def read_solutions(options: TrainOptions, column: str | None, examples: Sequence[Example]) -> dict[str, str]:
    """A right solution of each question by its id; empty where there is none.

    Args:
        options: of the run.
        column: of the rows; None takes the task's own rationales.
        examples: the questions.

    Raises:
        QreditError: there is no solution at all; as `read_text_column`.
    """
    if column is not None:
        texts = read_text_column(column, examples, str(options.data), "solution column")
    else:
        texts = [one.rationale or "" for one in examples]
    if not any(texts):
        how = "name a column: solution_column" if options.task == "jsonl" else "give your questions as task jsonl"
        raise QreditError(f"task {options.task} has no solutions to be shown; {how}")
    return {one.id: text for one, text in zip(examples, texts, strict=True)}
