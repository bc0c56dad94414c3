"""Several optimisers as one, for schedules and checkpoints that know one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class JoinedOptimizers(Optimizer):
    """Optimisers of different weights that step together and have one list of groups and one state.

    Args:
        parts: each with its weights; what they hold of groups and state becomes that of the whole.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._parts, self._sizes = tuple(parts), tuple(len(part.param_groups) for part in parts)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of each part.

        Args:
            closure: computes the loss anew.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        start = 0
        for part, size in zip(self._parts, self._sizes, strict=True):
            # loading a state makes new groups and a new state
            part.param_groups, part.state = self.param_groups[start : start + size], self.state
            part.step()
            start += size
        return loss
