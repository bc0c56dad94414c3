"""How an episode begins: what the environment says at first, in the prompt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qredit.environments.tools import append_text
from qredit.rollouts.format import Prompt

Template = Mapping[str, Any]


@dataclass(frozen=True)
class Beginning:
    """How what `reset` says comes into a prompt.

    Attributes:
        join: puts a text into a prompt.
        template_of: gives the switches of the chat template for a row; None where all rows have the run's.
    """

    join: Callable[[Prompt, str], Prompt] = append_text
    template_of: Callable[[Mapping[str, Any]], Template] | None = None

    def get_template(self, example: Mapping[str, Any]) -> Template | None:
        """The switches of a row's own; None where all rows have the run's."""
        return None if self.template_of is None else self.template_of(example)
