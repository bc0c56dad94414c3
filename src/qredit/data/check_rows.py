"""Rows looked through before a run: every prompt and every right answer as ids, and no prompt too long."""

from collections.abc import Mapping, Sequence
from typing import Any

from qredit.data.encoding import encode, encode_aliases
from qredit.data.rows import RowNames
from qredit.rollouts.format import TokenFormat
from qredit.utils.errors import QreditError


def check_rows(
    prompts: Sequence[Any],
    golds: Sequence[Any],
    aliases: Sequence[Sequence[str]],
    names: RowNames,
    tokens: TokenFormat,
    template: Mapping[str, Any],
    most: tuple[str, int],
) -> None:
    """Refuse rows that a run would stumble over.

    Args:
        prompts: texts, or chat messages.
        golds: the right answer of each, or several.
        aliases: other right answers that count for the likelihood; empty where they do not.
        names: of the rows, for errors.
        tokens: the layout of a completion, as ids of this tokenizer.
        template: switches of the chat template.
        most: the option that says how many tokens a prompt may have, and how many.

    Raises:
        QreditError: a prompt that is too long or cannot be rendered, an answer that does not join at the seam; the row
            is named.
    """
    found = encode(prompts, golds, names, tokens, template)
    encode_aliases(aliases, found.answer_ids, names, tokens)
    long = [row for row, ids in enumerate(found.prompt_ids) if len(ids) > most[1]]
    if long:
        raise QreditError(
            f"{names.where}: {len(long)} of {len(prompts)} prompts are longer than {most[0]}={most[1]} "
            f"({names.list_first(long)}; longest {max(map(len, found.prompt_ids))} tokens)"
        )
