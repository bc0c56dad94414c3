"""Checking a data set before any compute is spent, and turning its prompts and answers into ids."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from qredit.errors import QreditError, unknown
from qredit.rollout.format import TokenFormat
from qredit.rollout.sample import Budget

PROMPT_IDS, ANSWER_IDS = "prompt_ids", "answer_ids"


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
        if column not in dataset.column_names:
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
    answers = [_answer(value, row, name) for row, value in enumerate(dataset[answer_column])]
    known: dict[str, list[int]] = {}
    for row, answer in enumerate(answers):
        if answer not in known:
            try:
                known[answer] = tokens.answer_ids(answer)
            except QreditError as error:
                raise QreditError(f"{name}, row {row}: {error}") from None
    answer_ids = [known[answer] for answer in answers]
    prompt_ids = [tokens.prompt_ids(prompt, **template) for prompt in dataset["prompt"]]
    long = _too_long(prompt_ids, answer_ids, tokens, budget, context)
    if long and not skip_long:
        raise QreditError(_explain_long(long, prompt_ids, budget, context, name))
    if answer_column != "answer":
        dataset = dataset.rename_column(answer_column, "answer")
    columns = {"answer": answers, PROMPT_IDS: prompt_ids, ANSWER_IDS: answer_ids}
    for column, values in columns.items():
        if column in dataset.column_names:
            dataset = dataset.remove_columns(column)
        dataset = dataset.add_column(column, values)
    if long:
        dropped = set(long)
        dataset = dataset.select([row for row in range(len(dataset)) if row not in dropped])
    return dataset, len(long)


def check_enough(prompts: int, per_generation: int, name: str) -> None:
    """Refuse a data set too small for one step, which would train for 0 steps.

    Raises:
        QreditError: fewer prompts than one generation needs.
    """
    if prompts < per_generation:
        raise QreditError(
            f"{name} has {prompts} prompts, but one step needs {per_generation} different ones; lower the prompts per "
            "step (per_device_train_batch_size, gradient_accumulation_steps, num_generations) or add data"
        )


def _answer(value: Any, row: int, name: str) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise QreditError(f"{name}, row {row}: the answer must be a non-empty text, got {value!r}")
    return value


def _too_long(
    prompt_ids: Sequence[Sequence[int]],
    answer_ids: Sequence[Sequence[int]],
    tokens: TokenFormat,
    budget: Budget,
    context: int | None,
) -> list[int]:
    if context is None:
        return []
    fixed = budget.thinking + len(tokens.close_ids)
    rows = zip(prompt_ids, answer_ids, strict=True)
    return [n for n, (p, a) in enumerate(rows) if len(p) + fixed + max(len(a), budget.answer) > context]


def _explain_long(
    long: Sequence[int], prompt_ids: Sequence[Sequence[int]], budget: Budget, context: int | None, name: str
) -> str:
    longest = max(len(prompt_ids[row]) for row in long)
    shown = ", ".join(map(str, long[:5])) + (", …" if len(long) > 5 else "")
    return (
        f"{name}: {len(long)} of {len(prompt_ids)} prompts do not fit (rows {shown}; longest {longest} tokens): the "
        f"context of {context} tokens less {budget.thinking} for thinking and {budget.answer} for the answer; "
        "lower max_completion_length or set skip_long to drop them"
    )
