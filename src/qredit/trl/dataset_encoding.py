"""The data sets of a run: checked before any compute is spent, and given the columns that a run reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.logging import get_logger
from datasets import Dataset, concatenate_datasets

from qredit.data.encoding import (
    ALIAS_IDS,
    ANSWER_IDS,
    HINTED_IDS,
    PROMPT_IDS,
    encode,
    encode_aliases,
    encode_hinted,
    encode_prompts_alone,
)
from qredit.data.rows import RowNames, find_too_long
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.retry_hint import HintLevel
from qredit.rollouts.sampling_params import TokenBudget
from qredit.tasks.alias_use import AliasUse
from qredit.tasks.base import NEEDED
from qredit.tasks.table import get_field, has_field
from qredit.trl.config import QreditConfig
from qredit.utils.errors import QreditError, unknown_name_error

ALIASES, ANSWER = "aliases", "answer"
_log = get_logger(__name__)


def check_columns(dataset: Any, answer_column: str, name: str, needed: str | None = NEEDED) -> None:
    """Refuse what is not a data set with `prompt` and the answer column, naming the nearest column there is.

    Args:
        dataset: as the user gave it.
        answer_column: column of the reference answer.
        name: what errors call it.
        needed: why every row must have an answer; None where none need have one, if the column has its usual name.

    Raises:
        QreditError: a streaming or other data set, or a missing column.
    """
    if not isinstance(dataset, Dataset):
        raise QreditError(
            f"{name} must be a datasets.Dataset (its answers are checked before training), got {type(dataset).__name__}"
        )
    for column in ("prompt", answer_column):
        outer = column if column in dataset.column_names else column.split(".")[0]
        if outer in dataset.column_names or (column == ANSWER and needed is None):
            continue
        unknown = unknown_name_error(f"column of {name}", column, dataset.column_names)
        raise unknown if column == "prompt" or needed is None else QreditError(f"{unknown}: {needed}")
    if answer_column != "answer" and "answer" in dataset.column_names:
        raise QreditError(
            f"{name} has a column 'answer' beside answer_column='{answer_column}'; remove or rename one of them"
        )


def encode_examples(
    dataset: Dataset,
    answer_column: str,
    tokens: TokenFormat,
    budget: TokenBudget,
    context: int | None,
    skip_long: bool,
    template: dict[str, Any],
    name: str,
    hint_template: str | None = None,
    aliases: AliasUse = AliasUse.REWARD,
    likely: bool = True,
) -> tuple[Dataset, int]:
    """The data set with the columns `answer`, `prompt_ids` and `answer_ids`, and how many long prompts were dropped.

    Without a column of answers there is no `answer`, and `answer_ids` are empty.

    Args:
        dataset: with prompt and answer columns.
        answer_column: column of the reference answer.
        tokens: the layout of a completion, as ids of this tokenizer.
        budget: the most tokens of thinking and of answer.
        context: the model's context length in tokens; None is unlimited.
        skip_long: drop prompts longer than the context less the budget, instead of refusing them.
        template: switches of the chat template.
        name: what errors call it.
        hint_template: given where each prompt is needed with its gold answer, too: the column `hinted_ids`.
        aliases: what they count for. For the likelihood there is the column `alias_ids`, if any row has some; where
            they do not count for rewards the column `aliases` is left out.
        likely: whether a likelihood is read at all.

    Raises:
        QreditError: an empty answer, an answer or alias that does not join at the seam, prompts that are too long, with
            or without the hint or an alias (which rows, how many).
    """
    rows = _name_rows(dataset, name)
    prompts = dataset["prompt"][:]
    answered = answer_column.split(".")[0] in dataset.column_names or answer_column in dataset.column_names
    encoded = (
        encode(prompts, _column(dataset, answer_column, rows), rows, tokens, template)
        if answered
        else encode_prompts_alone(prompts, rows, tokens, template)
    )
    kept = [max(len(ids), budget.answer) for ids in encoded.answer_ids]
    long = find_too_long(encoded.prompt_ids, kept, tokens, budget, context)
    rows.check_long(long, encoded.prompt_ids, budget, context, skip_long)
    hinted: dict[str, Any] = {}
    if hint_template is not None:
        shown = encode_hinted(prompts, encoded.answers, rows, tokens, template, hint_template)
        too_long = find_too_long(shown, kept, tokens, budget, context)
        rows.check_long(too_long, shown, budget, context, skip_long, "prompts with the hint")
        hinted, long = {HINTED_IDS: shown}, sorted({*long, *too_long})
    known = dataset[ALIASES][:] if ALIASES in dataset.column_names else [[]] * len(dataset)
    texts = [[*given, *_list(more)] if answered else [] for given, more in zip(encoded.aliases, known, strict=True)]
    further: dict[str, Any] = {}
    if likely and aliases.in_likelihood and any(texts):
        alias_ids = encode_aliases(texts, encoded.answer_ids, rows, tokens)
        longest = [max(map(len, [gold, *more])) for gold, more in zip(encoded.answer_ids, alias_ids, strict=True)]
        asked = (encoded.prompt_ids, *hinted.values())
        with_aliases = {row for ids in asked for row in find_too_long(ids, longest, tokens, budget, context)}
        rows.check_long_aliases(sorted(with_aliases - {*long}), longest, context, skip_long)
        long = sorted({*long, *with_aliases})
        further = {ALIAS_IDS: alias_ids} if any(alias_ids) else {}
    if answer_column in dataset.column_names and answer_column != "answer":
        dataset = dataset.rename_column(answer_column, "answer")
    ids = {PROMPT_IDS: encoded.prompt_ids, ANSWER_IDS: encoded.answer_ids, **hinted, **further}
    columns: dict[str, Any] = {ANSWER: encoded.answers, **ids} if answered else ids
    if any(encoded.aliases) and aliases.in_reward:
        columns[ALIASES] = texts
    unread = {ALIAS_IDS, *columns, *(() if aliases.in_reward else (ALIASES,))}
    dataset = dataset.remove_columns([name for name in dataset.column_names if name in unread])
    # all in one piece: `add_column` would hash every value of every column for a name of its cache
    dataset = concatenate_datasets([dataset, Dataset.from_dict(columns)], axis=1)
    if long:
        dropped = set(long)
        dataset = dataset.select([row for row in range(len(dataset)) if row not in dropped])
    return dataset, len(long)


def check_hints_fit(
    dataset: Dataset,
    levels: Sequence[HintLevel],
    tokens: TokenFormat,
    budget: TokenBudget,
    context: int | None,
    template: Mapping[str, Any],
) -> None:
    """Refuse training rows whose prompts do not fit the context once they hold the answer or the request for a hint.

    Args:
        dataset: encoded, with its answers as text.
        levels: the kinds of hints; the one with the longest wording is tried.
        tokens: the layout of completions.
        budget: tokens that are sampled for one.
        context: the model's context length in tokens; None is unlimited.
        template: switches of the chat template.

    Raises:
        QreditError: which rows, how many; a prompt that cannot take a hint.
    """
    rows = _name_rows(dataset, "train_dataset")
    wording = max((level.ask or level.show for level in levels), key=len)
    shown = encode_hinted(dataset["prompt"][:], dataset["answer"][:], rows, tokens, template, wording)
    long = find_too_long(shown, [budget.answer] * len(shown), tokens, budget, context)
    rows.check_long(long, shown, budget, context, skip_long=False, what="prompts with the hint")


def encode_datasets(
    training: Dataset,
    evaluation: Any,
    args: QreditConfig,
    tokens: TokenFormat,
    context: int | None,
    template: dict[str, Any],
    hint_template: str | None = None,
    likely: bool = True,
    budget: TokenBudget | None = None,
) -> tuple[Dataset, Any]:
    """The data sets of a run by `encode_examples`, with a warning where prompts were dropped.

    Args:
        training: with prompt and answer columns.
        evaluation: a data set, several by name, or None.
        args: of the trainer.
        tokens: the layout of a completion, as ids of this tokenizer.
        context: the most tokens that the model reads; None is not known.
        template: switches of the chat template.
        hint_template: given where prompts are needed with their gold answers, too.
        likely: whether a likelihood is read.
        budget: tokens that may follow a prompt, where they are more than those of one turn.

    Raises:
        QreditError: as `encode_examples`; too few prompts for a step.
    """

    def encoded(dataset: Dataset, name: str) -> Dataset:
        ready, dropped = encode_examples(
            *(dataset, args.answer_column, tokens, budget or args.budget, context, args.skip_long, template, name),
            hint_template=hint_template,
            aliases=AliasUse.parse(args.aliases),
            likely=likely,
        )
        if dropped:
            _log.warning(f"{name}: {dropped} prompts were too long and are left out")
        return ready

    training = encoded(training, "train_dataset")
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    needed = max(args.generation_batch_size, per_step) // args.num_generations
    check_enough(len(training), needed, "train_dataset")
    if isinstance(evaluation, dict):
        return training, {name: encoded(part, f"eval_dataset '{name}'") for name, part in evaluation.items()}
    return training, None if evaluation is None else encoded(evaluation, "eval_dataset")


def list_eval_datasets(evaluation: Any) -> dict[str, Any]:
    """Each evaluation data set under the name that errors give it."""
    if evaluation is None:
        return {}
    if isinstance(evaluation, dict):
        return {f"eval_dataset '{name}'": dataset for name, dataset in evaluation.items()}
    return {"eval_dataset": evaluation}


def check_enough(prompts: int, per_generation: int, name: str) -> None:
    """Refuse a data set too small for one step, which would train for 0 steps.

    Args:
        prompts: of the data set.
        per_generation: prompts of a generation.
        name: what errors call it.

    Raises:
        QreditError: fewer prompts than one generation needs.
    """
    if prompts < per_generation:
        raise QreditError(
            f"{name} has {prompts} prompts, but one step needs {per_generation} different ones; lower the prompts per "
            "step (--prompts-per-step; in a script per_device_train_batch_size, gradient_accumulation_steps, "
            "num_generations) or add data"
        )


def _name_rows(dataset: Dataset, name: str) -> RowNames:
    return RowNames.of(dataset["id"][:] if "id" in dataset.column_names else None, len(dataset), name)


def _column(dataset: Dataset, name: str, rows: RowNames) -> list[Any]:
    """The values of a column, perhaps inside another one: "reward_model.ground_truth"."""
    if name in dataset.column_names:
        return list(dataset[name][:])
    outer, _, inner = name.partition(".")
    values = list(dataset[outer][:])
    for row, value in enumerate(values):
        if not has_field({outer: value}, name):
            there = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
            raise QreditError(f"{rows.name(row)}: no '{inner}' inside column '{outer}'; it holds: {there}")
    return [get_field({outer: value}, name) for value in values]


def _list(aliases: Any) -> list[str]:
    return [aliases] if isinstance(aliases, str) else list(aliases or ())
