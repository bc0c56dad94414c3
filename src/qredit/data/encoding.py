"""Prompts and gold answers as token ids, before any compute is spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.core.hint import fill_template
from qredit.data.rows import RowNames
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.hinted_prompt import show_answer
from qredit.tasks.cells import parse_answers
from qredit.tasks.normal_forms import find_unreadable
from qredit.utils.errors import QreditError

# columns that a data set is given
PROMPT_IDS, ANSWER_IDS, ALIAS_IDS, HINTED_IDS = "prompt_ids", "answer_ids", "alias_ids", "hinted_ids"


@dataclass(frozen=True)
class Encoded:
    """The rows of a data set as a run reads them, column by column.

    Attributes:
        prompt_ids: of each prompt, opening included.
        answers: the gold answer, as text.
        answer_ids: the same as ids, seam and end included.
        aliases: further answers that the same cell gives.
    """

    prompt_ids: list[list[int]]
    answers: list[str]
    answer_ids: list[list[int]]
    aliases: list[tuple[str, ...]]


def encode(
    prompts: Sequence[Any], golds: Sequence[Any], rows: RowNames, tokens: TokenFormat, template: Mapping[str, Any]
) -> Encoded:
    """Prompts and gold answers as ids.

    Args:
        prompts: texts, or chat messages.
        golds: the cell of each row: a text, or several of which the first is trained on.
        rows: their names, for errors.
        tokens: the layout of a completion, as ids of this tokenizer.
        template: switches of the chat template.

    Raises:
        QreditError: an empty answer, an answer that does not join at the seam, a prompt that the chat template
            refuses; the row is named.
    """
    given = [_answers(value, rows.name(row)) for row, value in enumerate(golds)]
    answers = [answer for answer, *_ in given]
    known: dict[str, list[int]] = {}
    for row, answer in enumerate(answers):
        if answer not in known:
            try:
                known[answer] = tokens.answer_ids(answer)
            except QreditError as error:
                raise QreditError(f"{rows.name(row)}: {error}") from None
    return Encoded(
        prompt_ids=rows.encode_prompts(tokens, prompts, template),
        answers=answers,
        answer_ids=[known[answer] for answer in answers],
        aliases=[more[1:] for more in given],
    )


def encode_prompts_alone(
    prompts: Sequence[Any], rows: RowNames, tokens: TokenFormat, template: Mapping[str, Any]
) -> Encoded:
    """The same of rows without answers: their ids are empty.

    Args:
        prompts: texts, or chat messages.
        rows: their names, for errors.
        tokens: the layout of a completion, as ids of this tokenizer.
        template: switches of the chat template.

    Raises:
        QreditError: a prompt that the chat template refuses; the row is named.
    """
    nothing = len(prompts)
    return Encoded(rows.encode_prompts(tokens, prompts, template), [""] * nothing, [[]] * nothing, [()] * nothing)


def encode_aliases(
    aliases: Sequence[Sequence[str]], answer_ids: Sequence[Sequence[int]], rows: RowNames, tokens: TokenFormat
) -> list[list[list[int]]]:
    """The ids of each row's aliases, seam and end included.

    Left out are blank ones, and those whose ids are the gold answer's or an earlier alias's: the likelihood is a sum
    over different answers.

    Args:
        aliases: texts, for each row.
        answer_ids: the gold answers' ids.
        rows: their names, for errors.
        tokens: the layout of answers in ids.

    Raises:
        QreditError: an alias that does not join at the seam or that no tokenizer reads; row and alias are named.
    """
    found = []
    for row, (texts, gold) in enumerate(zip(aliases, answer_ids, strict=True)):
        different = {tuple(_alias_ids(text, row, rows, tokens)): None for text in texts if text.strip()}
        found.append([list(ids) for ids in different if ids != tuple(gold)])
    return found


def _alias_ids(alias: str, row: int, rows: RowNames, tokens: TokenFormat) -> list[int]:
    if bad := find_unreadable(alias):
        raise QreditError(f"{rows.name(row)}: alias {alias!r} holds {bad}")
    try:
        return tokens.answer_ids(alias)
    except QreditError as error:
        raise QreditError(
            f"{rows.name(row)}: alias {alias!r} cannot count for the likelihood; mend or remove it, or set aliases to "
            f"'reward': {error}"
        ) from None


def encode_hinted(
    prompts: Sequence[Any],
    answers: Sequence[str],
    rows: RowNames,
    tokens: TokenFormat,
    template: Mapping[str, Any],
    hint_template: str,
) -> list[list[int]]:
    """The ids of each prompt with its gold answer shown, opening included.

    Args:
        prompts: texts, or chat messages.
        answers: the gold answer of each.
        rows: their names, for errors.
        tokens: the layout of a completion, as ids of this tokenizer.
        template: switches of the chat template.
        hint_template: how a prompt is written with its answer (`core/hint.py`).

    Raises:
        QreditError: a prompt that cannot take the hint, or that the chat template refuses with it; the row is named.
    """

    def fill(prompt: str, answer: str) -> str:
        return fill_template(hint_template, prompt, answer)

    shown = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        try:
            shown.append(show_answer(prompt, answer, fill))
        except QreditError as error:
            raise QreditError(f"{rows.name(row)}: {error}") from None
    return rows.encode_prompts(tokens, shown, template)


def _answers(value: Any, where: str) -> tuple[str, ...]:
    answers = parse_answers(value)
    if not answers:
        raise QreditError(f"{where}: the answer must be a non-empty text, got {value!r}")
    if bad := find_unreadable(list(answers)):
        raise QreditError(f"{where}: the answer holds {bad}")
    return answers
