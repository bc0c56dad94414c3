"""`qredit intervene`, without a terminal: from a run's wrong rollouts to rows that fine-tuning imitates."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from qredit.data.completions import CompletionGroup
from qredit.data.corrections import Correction, WrongRollout
from qredit.engine.model_limits import get_context_length
from qredit.rewards.judge.endpoint import Question
from qredit.rewards.reward_spec import parse_rewards
from qredit.rollouts.format import is_chat
from qredit.rollouts.tokenizer import digest_vocabulary
from qredit.runs.dpo import check_same_tokenizer
from qredit.runs.folder import RunFolder
from qredit.runs.fresh_rollouts import sample_groups
from qredit.runs.interventions import (
    JudgeProposer,
    OwnProposer,
    Setting,
    correct_rollouts,
    count_batch,
    find_wrong_rollouts,
)
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
from qredit.runs.row_file import RowFile
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
    file: RowFile,
) -> Interventions:
    """The rows of a run's wrong rollouts, in a file that is kept batch by batch; without a row there is none.

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
        file: where they are written, and what is done already is taken up.

    Raises:
        QreditError: episodes, no solutions, rollouts of another vocabulary, none that is wrong; before the model is
            loaded, where that can be known. What is done already is of other rollouts.
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
    vocabulary, done = digest_vocabulary(tokenizer), file.open()
    check_done(file, wrong, count_batch(tries))
    left = iter(wrong[len(file.rows) :])
    with make_progress_bars(console) as bars:
        bar = bars.add_task("corrections", total=len(wrong), completed=len(file.rows), note="")
        for batch in correct_rollouts(wrong, proposer, setting, step_tokens, tries, done):
            file.add([_as_result(next(left), made, vocabulary) for made in batch])
            bars.advance(bar, len(batch))
    rows = [one["row"] for one in file.rows if "row" in one]
    reasons = Counter(one["reason"] for one in file.rows if "reason" in one)
    file.close(rows)
    return Interventions(rows, reasons)


def _as_result(one: WrongRollout, made: Correction | str, vocabulary: str) -> dict[str, Any]:
    """What became of a wrong rollout, for JSON: a row, or why there is none.

    Args:
        one: the rollout.
        made: of it.
        vocabulary: that its ids are of.
    """
    told = {"row": {**made.as_record(), "vocabulary": vocabulary}} if isinstance(made, Correction) else {"reason": made}
    return {"prompt_ids": list(one.prompt_ids), "rationale_ids": list(one.rationale_ids), **told}


def check_done(file: RowFile, wrong: Sequence[WrongRollout], size: int) -> None:
    """Refuse results of other rollouts than these, in this order: the run, its model or its data were changed since.

    Args:
        file: with what is done.
        wrong: the rollouts.
        size: of a batch. A shorter part is the last one, behind which nothing can follow.

    Raises:
        QreditError: names the file.
    """
    known = [(one.get("prompt_ids"), one.get("rationale_ids")) for one in file.rows]
    asked = [(list(one.prompt_ids), list(one.rationale_ids)) for one in wrong[: len(file.parts) * size]]
    if known != asked:
        raise QreditError(f"{file.partial} is of other rollouts; give another --output, or remove it to begin anew")


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
