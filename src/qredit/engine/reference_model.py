"""The model that a KL is taken to: the one a run began with."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.engine.teacher import Forward, get_head
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.patch_forward import ScoreRequest, enable_token_scoring
from qredit.shared_prefix.share import share_prefix
from qredit.utils.errors import QreditError

HIDDEN_STATES_REQUEST = ScoreRequest(hidden=True)


class ReferenceModel:
    """The teacher `reference`: the model as it was when this was made.

    A model with adapters is its own reference with them switched off; any other is copied, which holds its weights
    twice.

    Raises:
        QreditError: the model's weights cannot be copied, or its head cannot score tokens.
    """

    def __init__(self, model: Any) -> None:
        self.adapted = hasattr(model, "disable_adapter")  # a PEFT model
        if self.adapted:
            self.model: Any = None
            return
        with torch.device(model.device):
            copied = type(model)._from_config(model.config, dtype=model.dtype)
        copied.load_state_dict(model.state_dict())
        copied.requires_grad_(False).eval()
        self.model = copied
        share_prefix(copied)
        if not enable_token_scoring(copied):
            raise QreditError("the objective needs a reference model, but this model's head cannot score tokens")

    def logp(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T"]:
        with self._as_begun(forward.policy) as base:
            return forward.scores(base, rows)["logp"]

    def hidden(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T E"]:
        with self._as_begun(forward.policy) as base:
            return forward.scores(base, rows, HIDDEN_STATES_REQUEST)["hidden"]

    def head(self, policy: Any) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the head, which adapters are taken to leave alone."""
        return get_head(policy if self.adapted else self.model)

    @contextmanager
    def _as_begun(self, policy: Any) -> Iterator[Any]:
        base = policy if self.adapted else self.model
        with base.disable_adapter() if self.adapted else nullcontext():
            yield base
