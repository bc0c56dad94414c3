"""Demonstrations for supervised fine-tuning: prompts, and completions to be learned, as token ids.

    prompt + opening | rationale  closing  seam answer end
     not learned       learned

A completion is laid out as rollouts are (`rollouts/format.py`): between rationale and answer stand the ids that close
thinking by force, and the answer's ids are those whose likelihood an objective reads. The closing is learned too, so
that a model that is shown no rationale closes its thinking at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.data.completions import parse_ids
from qredit.data.encoding import encode
from qredit.data.rows import RowNames
from qredit.rollouts.format import TokenFormat
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class Demonstration:
    """A prompt and a completion that is to be learned.

    Attributes:
        prompt_ids: opening included.
        completion_ids: rationale, closing, seam, answer and end.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    @classmethod
    def from_record(cls, record: Any, vocabulary: str, size: int) -> "Demonstration":
        """One that is given as token ids, such as `corrections.Correction.as_record` gives them.

        Args:
            record: prompt_ids, completion_ids and vocabulary; further keys are not read.
            vocabulary: the digest of the one that the ids must be of.
            size: its largest id + 1.

        Raises:
            ValueError: it is no such record, whatever it is, or of another vocabulary.
        """
        if not isinstance(record, Mapping) or not record.get("prompt_ids") or not record.get("completion_ids"):
            raise ValueError("a row has prompt_ids, completion_ids and vocabulary")
        if record.get("vocabulary") != vocabulary:
            raise ValueError("its ids are of another vocabulary than the model's; make it with this model")
        made = cls(parse_ids(record["prompt_ids"]), parse_ids(record["completion_ids"]))
        if (largest := max(made.ids)) >= size:
            raise ValueError(f"token id {largest} is none of the vocabulary's, which go up to {size - 1}")
        return made

    @property
    def ids(self) -> list[int]:
        """All tokens."""
        return [*self.prompt_ids, *self.completion_ids]

    @property
    def completion_mask(self) -> list[bool]:
        """Which tokens count for the loss."""
        return [False] * len(self.prompt_ids) + [True] * len(self.completion_ids)


def encode_demonstrations(
    prompts: Sequence[Any],
    answers: Sequence[str],
    rationales: Sequence[str],
    rows: RowNames,
    tokens: TokenFormat,
    template: Mapping[str, Any],
) -> list[Demonstration]:
    """Prompts, rationales and answers as ids, a demonstration for each row.

    Args:
        prompts: texts, or chat messages.
        answers: gold answers.
        rationales: a text for each row; an empty one where the answer alone is shown.
        rows: their names, for errors.
        tokens: the layout of completions.
        template: switches of the chat template.

    Raises:
        QreditError: an empty answer, one that does not join at the seam, a rationale that spells the closing or a
            control token, a prompt that the chat template refuses; the row is named.
    """
    encoded = encode(prompts, answers, rows, tokens, template)
    thoughts = [_rationale_ids(text, row, rows, tokens) for row, text in enumerate(rationales)]
    columns = zip(encoded.prompt_ids, thoughts, encoded.answer_ids, strict=True)
    return [Demonstration(tuple(prompt), (*thought, *tokens.close_ids, *answer)) for prompt, thought, answer in columns]


def leave_out_long(
    shown: Sequence[Demonstration], rows: RowNames, context: int | None, skip_long: bool
) -> list[Demonstration]:
    """The demonstrations that fit the model's context.

    Args:
        shown: the demonstrations.
        rows: their names, for errors.
        context: the model's context length in tokens; None is unlimited.
        skip_long: leave the others out, instead of refusing them.

    Raises:
        QreditError: some do not fit and are not to be left out, or none fits; all of them counted, the first named.
    """
    long = [row for row, one in enumerate(shown) if context is not None and len(one.ids) > context]
    if long and not (skip_long and len(long) < len(shown)):
        raise QreditError(
            f"{rows.where}: {len(long)} of {len(shown)} prompts with their completions do not fit the context of "
            f"{context} tokens ({rows.list_first(long)}; longest {max(len(one.ids) for one in shown)} tokens)"
            + ("; set skip_long to drop them" if len(long) < len(shown) else "")
        )
    dropped = set(long)
    return [one for row, one in enumerate(shown) if row not in dropped]


def _rationale_ids(text: str, row: int, rows: RowNames, tokens: TokenFormat) -> list[int]:
    try:
        return tokens.rationale_ids(text)
    except QreditError as error:
        raise QreditError(f"{rows.name(row)}: {error}") from None
