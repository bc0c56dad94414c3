"""Which columns of a user's table hold the prompt, the answer and its aliases: as given, or by the names others use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qredit.tasks.base import NEEDED, Record
from qredit.tasks.cells import parse_chat, split_chat
from qredit.tasks.table import get_field, has_field
from qredit.utils.errors import QreditError, find_nearest

_PROMPTS = ("prompt", "messages", "question", "problem", "query", "instruction", "input")
_ANSWERS = (
    "answer", "answers", "solution", "response", "output", "completion", "ground_truth", "gold", "target", "label",
    "final_answer", "expected_answer", "reward_model.ground_truth",
)  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Names of columns, each perhaps inside others: "reward_model.ground_truth". None: found by name.

    Attributes:
        answer: once found, None says that the answer is the last message of `prompt`, or that there is none.
        answered: once found, whether rows have an answer at all.
    """

    prompt: str | None = None
    answer: str | None = None
    aliases: str | None = None
    answered: bool = True

    def found(self, where: str, record: Record, needed: str | None = NEEDED) -> "Columns":
        """The columns to be read, going by the first record.

        "prompt" and "answer" come first; without them, the one column with a name that others use (question, problem,
        …; solution, response, …). Chat messages in a column of another name than "prompt", without an answer beside
        them, hold it as their last message.

        Args:
            where: the record, for errors.
            record: the first one.
            needed: why there must be an answer; None where none need be.

        Raises:
            QreditError: no such column, or several.
        """
        prompt = self.prompt or _usual(where, record, "prompt", _PROMPTS)
        if prompt is None:
            raise _missing(where, record, "prompt", NEEDED)
        answer = self.answer or _usual(where, record, "answer", _ANSWERS)
        if answer is None and needed is None and not _ends_with_answer(get_field(record, prompt)):
            return Columns(prompt, None, self.aliases or "aliases", answered=False)
        if answer is None and (prompt == "prompt" or not isinstance(get_field(record, prompt), list)):
            raise _missing(where, record, "answer", str(needed))
        return Columns(prompt, answer, self.aliases or "aliases")

    def told(self) -> str | None:
        """In words what was taken, where it is not prompt and answer."""
        if not self.answered:
            return f"prompts are column '{self.prompt}', and rows have no reference answers"
        if (self.prompt, self.answer) == ("prompt", "answer"):
            return None
        answers = "the last of them" if self.answer is None else f"column '{self.answer}'"
        return f"prompts are column '{self.prompt}', answers {answers}"


def _ends_with_answer(prompt: Any) -> bool:
    messages = parse_chat(prompt)
    return messages is not None and split_chat(messages) is not None


def _usual(where: str, record: Record, role: str, names: Sequence[str]) -> str | None:
    there = [name for name in names if has_field(record, name)]
    if len(there) > 1 and there[0] != role:
        raise QreditError(
            f"{where}: the {role} may be column {' or '.join(repr(name) for name in there)}; say which: "
            f"--{role}-column {there[0]}"
        )
    return there[0] if there else None


def _missing(where: str, record: Record, role: str, why: str) -> QreditError:
    """In the words of `Table.iter_records` for a column that is not there, and the option that names another."""
    nearest = find_nearest(role, record)
    hint = "" if nearest is None else f"did you mean '{nearest}'? "
    names = ", ".join(sorted(map(str, record)))
    return QreditError(f"{where}: no field '{role}'; {hint}There are: {names}; name one with --{role}-column: {why}")
