"""A teacher that reads another prompt, as it is given to a trainer: by rows of the data, not yet in ids."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from qredit.rollouts.format import Prompt


@dataclass(frozen=True, eq=False)
class Hint:
    """A teacher that reads another prompt before the same completion.

    Args:
        prompt: a data set's row → the other prompt, text or messages as the row's own `prompt` is; the thinking that
            the row's prompt opens is opened behind it, too.
        model: who reads it; None is the policy itself, by its weights when the rollouts are made.
    """

    prompt: Callable[[Mapping[str, Any]], Prompt]
    model: str | PreTrainedModel | None = None
