"""How errors name the rows of a data set, and which of them do not fit a model's context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class RowNames:
    """How errors name the rows of a data set: by the column `id` if there is one, else by their number from 0."""

    where: str
    kind: str
    names: Sequence[str]

    @classmethod
    def of(cls, ids: Sequence[Any] | None, count: int, where: str) -> "RowNames":
        """The names of the rows of the data set that errors call `where`.

        Args:
            ids: of the rows, where the data set has them.
            count: how many rows there are.
            where: what errors call the data set.
        """
        if ids is None:
            return cls(where, "row", [str(row) for row in range(count)])
        return cls(where, "id", [repr(id) for id in ids])

    def name(self, row: int) -> str:
        """A single row."""
        return f"{self.where}, {self.kind} {self.names[row]}"

    def list_first(self, rows: Sequence[int]) -> str:
        """Several rows, of many the first five: "rows 3, 7"."""
        return f"{self.kind}s {', '.join(self.names[row] for row in rows[:5])}{', …' if len(rows) > 5 else ''}"

    def encode_prompts(
        self, tokens: TokenFormat, prompts: Sequence[Any], template: Mapping[str, Any]
    ) -> list[list[int]]:
        """The ids of the rows' prompts.

        Args:
            tokens: the layout of a completion, as ids of this tokenizer.
            prompts: texts or chat messages.
            template: switches of the chat template.

        Raises:
            QreditError: the chat template refuses one; the row is named.
        """
        texts = [self._render(row, tokens, prompt, template) for row, prompt in enumerate(prompts)]
        return tokens.encode_rendered(prompts, texts)

    def _render(self, row: int, tokens: TokenFormat, prompt: Any, template: Mapping[str, Any]) -> str:
        try:
            return tokens.format.render(prompt, tokens.tokenizer, **template)
        except QreditError as error:
            raise QreditError(f"{self.name(row)}: {error}") from None

    def check_long(
        self,
        long: Sequence[int],
        prompt_ids: Sequence[Sequence[int]],
        budget: TokenBudget,
        context: int | None,
        skip_long: bool,
        what: str = "prompts",
    ) -> None:
        """Refuse rows whose prompts are too long, unless they are to be left out and others stay.

        Args:
            long: their numbers.
            prompt_ids: of every row.
            budget: the most tokens of thinking and of answer.
            context: the model's context length in tokens; None is unlimited.
            skip_long: leave long prompts out instead.
            what: what errors call the prompts.

        Raises:
            QreditError: all of them counted, the first ones named.
        """
        if not long or (skip_long and len(long) < len(prompt_ids)):
            return
        longest = max(map(len, prompt_ids))
        raise QreditError(
            f"{self.where}: {len(long)} of {len(prompt_ids)} {what} do not fit ({self.list_first(long)}; longest "
            f"{longest} tokens): the context of {context} tokens less {budget.thinking} {budget.terms[0]} and "
            f"{budget.answer} for the answer; {budget.terms[1]}"
            + (" or set skip_long to drop them" if len(long) < len(prompt_ids) else "")
        )

    def check_long_aliases(
        self, long: Sequence[int], answers: Sequence[int], context: int | None, skip_long: bool
    ) -> None:
        """Refuse rows whose prompts fit with the gold answer and not with an alias, unless they are to be left out.

        Args:
            long: their numbers.
            answers: tokens of each row's longest right answer.
            context: the model's context length in tokens; None is unlimited.
            skip_long: such rows are left out, as long as others stay.

        Raises:
            QreditError: all of them counted, the first ones named.
        """
        if not long or (skip_long and len(long) < len(answers)):
            return
        raise QreditError(
            f"{self.where}: {len(long)} rows have an alias that does not fit behind their prompt and thinking "
            f"({self.list_first(long)}; longest {max(answers[row] for row in long)} tokens): the context has {context} "
            "tokens; shorten or remove it, set aliases to 'reward', or lower max_completion_length"
        )


def find_too_long(
    prompt_ids: Sequence[Sequence[int]],
    answers: Sequence[int],
    tokens: TokenFormat,
    budget: TokenBudget,
    context: int | None,
) -> list[int]:
    """The rows whose prompt, thinking, closing and answer do not fit the context.

    Args:
        prompt_ids: of each row.
        answers: tokens to be kept for each row's answer.
        tokens: the layout of a completion, as ids of this tokenizer.
        budget: the most tokens of thinking and of answer.
        context: the model's context length in tokens; None is unlimited.
    """
    if context is None:
        return []
    fixed = budget.thinking + len(tokens.close_ids)
    rows = zip(prompt_ids, answers, strict=True)
    return [row for row, (prompt, answer) in enumerate(rows) if len(prompt) + fixed + answer > context]
