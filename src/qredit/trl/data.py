"""Checking a data set before any compute is spent, and turning its prompts and answers into ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.logging import get_logger
from datasets import Dataset
from transformers import PreTrainedModel

from qredit.engine.sampling import ANSWER_IDS, PROMPT_IDS
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import Budget
from qredit.tasks.cells import given_answers
from qredit.tasks.same import unreadable
from qredit.tasks.table import field_of, has_field
from qredit.trl.config import QreditConfig
from qredit.utils.errors import QreditError, unknown

_log = get_logger(__name__)


@dataclass(frozen=True)
class Rows:
    """How errors name the rows of a data set: by the column `id` if there is one, else by their number from 0."""

    where: str
    kind: str
    names: Sequence[str]

    @classmethod
    def of(cls, ids: Sequence[Any] | None, count: int, where: str) -> "Rows":
        """Rows of the data set that errors call `where`."""
        if ids is None:
            return cls(where, "row", [str(row) for row in range(count)])
        return cls(where, "id", [repr(id) for id in ids])

    def name(self, row: int) -> str:
        """A single row."""
        return f"{self.where}, {self.kind} {self.names[row]}"

    def of_prompt(self, row: int, tokens: TokenFormat, prompt: Any, template: Mapping[str, Any]) -> list[int]:
        """The ids of a row's prompt.

        Raises:
            QreditError: the chat template refuses it; the row is named.
        """
        try:
            return tokens.prompt_ids(prompt, **template)
        except QreditError as error:
            raise QreditError(f"{self.name(row)}: {error}") from None

    def check_long(
        self,
        long: Sequence[int],
        prompt_ids: Sequence[Sequence[int]],
        budget: Budget,
        context: int | None,
        skip_long: bool,
    ) -> None:
        """Refuse rows whose prompts are too long, unless they are to be left out and others stay.

        Raises:
            QreditError: all of them counted, the first ones named.
        """
        if not long or (skip_long and len(long) < len(prompt_ids)):
            return
        longest = max(map(len, prompt_ids))
        shown = ", ".join(self.names[row] for row in long[:5]) + (", …" if len(long) > 5 else "")
        raise QreditError(
            f"{self.where}: {len(long)} of {len(prompt_ids)} prompts do not fit ({self.kind}s {shown}; longest "
            f"{longest} tokens): the context of {context} tokens less {budget.thinking} for thinking and "
            f"{budget.answer} for the answer; lower max_completion_length"
            + (" or set skip_long to drop them" if len(long) < len(prompt_ids) else "")
        )


def check_columns(dataset: Any, answer_column: str, name: str) -> None:
    """Refuse what is not a data set with `prompt` and the answer column, naming the nearest column there is.

    Raises:
        QreditError: a streaming or other data set, or a missing column.
    """
    if not isinstance(dataset, Dataset):
        raise QreditError(
            f"{name} must be a datasets.Dataset (its answers are checked before training), got {type(dataset).__name__}"
        )
    for column in ("prompt", answer_column):
        outer = column if column in dataset.column_names else column.split(".")[0]
        if outer not in dataset.column_names:
            raise unknown(f"column of {name}", column, dataset.column_names)
    if answer_column != "answer" and "answer" in dataset.column_names:
        raise QreditError(
            f"{name} has a column 'answer' beside answer_column='{answer_column}'; remove or rename one of them"
        )


def encode_examples(
    dataset: Dataset,
    answer_column: str,
    tokens: TokenFormat,
    budget: Budget,
    context: int | None,
    skip_long: bool,
    template: dict[str, Any],
    name: str,
) -> tuple[Dataset, int]:
    """The data set with the columns `answer`, `prompt_ids` and `answer_ids`, and how many long prompts were dropped.

    Args:
        context: the model's context length in tokens; None is unlimited.
        skip_long: drop prompts longer than the context less the budget, instead of refusing them.
        template: switches of the chat template.

    Raises:
        QreditError: an empty answer, an answer that does not join at the seam, prompts that are too long (which rows,
            how many).
    """
    rows = Rows.of(dataset["id"] if "id" in dataset.column_names else None, len(dataset), name)
    golds = [_answers(value, rows.name(row)) for row, value in enumerate(_column(dataset, answer_column, rows))]
    answers = [answer for answer, *_ in golds]
    known: dict[str, list[int]] = {}
    for row, answer in enumerate(answers):
        if answer not in known:
            try:
                known[answer] = tokens.answer_ids(answer)
            except QreditError as error:
                raise QreditError(f"{rows.name(row)}: {error}") from None
    answer_ids = [known[answer] for answer in answers]
    prompt_ids = [rows.of_prompt(row, tokens, prompt, template) for row, prompt in enumerate(dataset["prompt"])]
    long = too_long(prompt_ids, [max(len(ids), budget.answer) for ids in answer_ids], tokens, budget, context)
    rows.check_long(long, prompt_ids, budget, context, skip_long)
    if answer_column in dataset.column_names and answer_column != "answer":
        dataset = dataset.rename_column(answer_column, "answer")
    columns: dict[str, Any] = {"answer": answers, PROMPT_IDS: prompt_ids, ANSWER_IDS: answer_ids}
    if any(len(given) > 1 for given in golds):
        known_aliases = dataset["aliases"] if "aliases" in dataset.column_names else [[]] * len(dataset)
        columns["aliases"] = [[*given[1:], *_list(more)] for given, more in zip(golds, known_aliases, strict=True)]
    for column, values in columns.items():
        if column in dataset.column_names:
            dataset = dataset.remove_columns(column)
        dataset = dataset.add_column(column, values)
    if long:
        dropped = set(long)
        dataset = dataset.select([row for row in range(len(dataset)) if row not in dropped])
    return dataset, len(long)


def encode_all(
    training: Dataset,
    evaluation: Any,
    args: QreditConfig,
    tokens: TokenFormat,
    context: int | None,
    template: dict[str, Any],
) -> tuple[Dataset, Any]:
    """The data sets of a run by `encode_examples`, with a warning where prompts were dropped.

    Args:
        evaluation: a data set, several by name, or None.

    Raises:
        QreditError: as `encode_examples`; too few prompts for a step.
    """

    def encoded(dataset: Dataset, name: str) -> Dataset:
        ready, dropped = encode_examples(
            dataset, args.answer_column, tokens, args.budget, context, args.skip_long, template, name
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


def evaluations(evaluation: Any) -> dict[str, Any]:
    """Each evaluation data set under the name that errors give it."""
    if evaluation is None:
        return {}
    if isinstance(evaluation, dict):
        return {f"eval_dataset '{name}'": dataset for name, dataset in evaluation.items()}
    return {"eval_dataset": evaluation}


def check_enough(prompts: int, per_generation: int, name: str) -> None:
    """Refuse a data set too small for one step, which would train for 0 steps.

    Raises:
        QreditError: fewer prompts than one generation needs.
    """
    if prompts < per_generation:
        raise QreditError(
            f"{name} has {prompts} prompts, but one step needs {per_generation} different ones; lower the prompts per "
            "step (--prompts-per-step; in a script per_device_train_batch_size, gradient_accumulation_steps, "
            "num_generations) or add data"
        )


def context_of(model: PreTrainedModel) -> int | None:
    """The model's context length in tokens; None is unlimited."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def too_long(
    prompt_ids: Sequence[Sequence[int]],
    answers: Sequence[int],
    tokens: TokenFormat,
    budget: Budget,
    context: int | None,
) -> list[int]:
    """The rows whose prompt, thinking, closing and answer do not fit the context.

    Args:
        answers: tokens to be kept for each row's answer.
        context: the model's context length in tokens; None is unlimited.
    """
    if context is None:
        return []
    fixed = budget.thinking + len(tokens.close_ids)
    rows = zip(prompt_ids, answers, strict=True)
    return [row for row, (prompt, answer) in enumerate(rows) if len(prompt) + fixed + answer > context]


def _column(dataset: Dataset, name: str, rows: Rows) -> list[Any]:
    """The values of a column, perhaps inside another one: "reward_model.ground_truth"."""
    if name in dataset.column_names:
        return list(dataset[name])
    outer, _, inner = name.partition(".")
    values = list(dataset[outer])
    for row, value in enumerate(values):
        if not has_field({outer: value}, name):
            there = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
            raise QreditError(f"{rows.name(row)}: no '{inner}' inside column '{outer}'; it holds: {there}")
    return [field_of({outer: value}, name) for value in values]


def _list(aliases: Any) -> list[str]:
    return [aliases] if isinstance(aliases, str) else list(aliases or ())


def _answers(value: Any, where: str) -> tuple[str, ...]:
    answers = given_answers(value)
    if not answers:
        raise QreditError(f"{where}: the answer must be a non-empty text, got {value!r}")
    if bad := unreadable(list(answers)):
        raise QreditError(f"{where}: the answer holds {bad}")
    return answers
