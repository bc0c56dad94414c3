"""Columns of texts that a rule of drawing reads: there in every row, mere text, and short enough for the model."""

from collections.abc import Sequence
from itertools import product

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from qredit.data.encoding import PROMPT_IDS
from qredit.drawing.parsing import parse_drawing
from qredit.rollouts.tokenizer import encode_all, find_first_control_token, get_control_tokens
from qredit.runs.options import TrainOptions
from qredit.tasks.base import Example
from qredit.tasks.table import read_text_column
from qredit.utils.errors import QreditError, unknown_name_error


def read_drawn_columns(options: TrainOptions, examples: Sequence[Example]) -> tuple[str, ...]:
    """The columns of the rows that a rule of drawing reads, each of them a text in every row.

    Args:
        options: of the run.
        examples: with the rows that they were read from.

    Raises:
        QreditError: there is no such column, with the nearest one; a row without a text.
    """
    rule = None if options.drawing is None else parse_drawing(options.drawing)
    names: tuple[str, ...] = getattr(rule, "columns", ())  # a rule of the user's need not read any
    for name in names:
        what, where = f"column of {rule}", str(options.data or options.task)
        there = {str(key) for one in examples for key in one.columns}
        if name not in there:  # a rule is given rows, in which a.b is no column
            raise unknown_name_error(f"{what} of {where}", name, there)
        texts = read_text_column(name, examples, where, what)
        silent = [one.place for text, one in zip(texts, examples, strict=True) if not text]
        if silent:
            raise QreditError(f"{silent[0]}: column '{name}', which {rule} reads, is empty")
    return names


def check_drawn_texts(names: Sequence[str], examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse texts that would be more than text to the model.

    Args:
        names: their columns, texts in every row.
        examples: with the rows that they were read from.
        tokenizer: of the model.

    Raises:
        QreditError: one spells a control token; the row is named.
    """
    control = get_control_tokens(tokenizer)  # type: ignore[arg-type]
    for name, one in product(names, examples):
        if found := find_first_control_token(one.columns[name], control):
            raise QreditError(f"{one.place}: column '{name}' spells the control token {found[1]!r}; take it out")


def check_drawn_fit(
    names: Sequence[str], rows: Dataset, tokenizer: PreTrainedTokenizerBase, context: int | None
) -> None:
    """Refuse texts that the model could not read behind their prompts.

    Args:
        names: their columns.
        rows: of the run, with the ids of their prompts.
        tokenizer: of the model.
        context: tokens that the model reads at most; None is unlimited.

    Raises:
        QreditError: counts them, and says how long the longest is.
    """
    if context is None:
        return
    for name in names:
        texts = encode_all(tokenizer, rows[name][:])  # type: ignore[arg-type]
        lengths = [len(prompt) + len(ids) for prompt, ids in zip(rows[PROMPT_IDS][:], texts, strict=True)]
        if long := [length for length in lengths if length > context]:
            raise QreditError(
                f"column '{name}': {len(long)} of {len(rows)} texts do not fit the context of {context} tokens behind "
                f"their prompts (longest {max(long)} tokens); shorten them"
            )
