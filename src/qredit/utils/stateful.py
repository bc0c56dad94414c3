"""What a part of a run has to be to go on from a checkpoint."""

from collections.abc import Mapping
from typing import Any, Protocol


class Stateful(Protocol):
    """A part of a run that goes on where a checkpoint left it.

    Attributes:
        name: what a checkpoint keeps its state under; a fixed word, never the name of a class.
    """

    @property
    def name(self) -> str: ...

    def state_dict(self) -> dict[str, Any]:
        """What must be kept: plain values, as JSON holds them; tensors too where each process has a file of its own."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a `state_dict`."""
