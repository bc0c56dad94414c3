"""A teacher that is a second loaded model."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from qredit.engine.reference_model import HIDDEN_STATES_REQUEST
from qredit.engine.teacher import Forward, get_head
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.packing import pack, pad_rows
from qredit.shared_prefix.patch_forward import enable_token_scoring
from qredit.shared_prefix.share import share_prefix
from qredit.utils.errors import QreditError


class NamedModel:
    """A model that is not trained here and shares the policy's token ids.

    It is frozen for good. Prompts are computed once for their group where it and the policy allow it.

    Raises:
        QreditError: its head cannot score tokens.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.model = model
        model.requires_grad_(False).eval()
        self._shares = share_prefix(model) is None
        if not enable_token_scoring(model):
            raise QreditError(f"the teacher '{name}' is a model whose head cannot score tokens")

    def logp(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T"]:
        return self._scores(rows, forward)["logp"]

    def hidden(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T E"]:
        return self._scores(rows, forward, hidden=True)["hidden"]

    def head(self, policy: Any) -> tuple[Tensor, Tensor | None]:
        return get_head(self.model)

    def _scores(self, rows: Rows, forward: Forward, hidden: bool = False) -> dict[str, Tensor]:
        layout = pack if self._shares and forward.layout is pack else pad_rows
        wanted = {"wanted": HIDDEN_STATES_REQUEST} if hidden else {}
        return forward.scores(self.model, rows, layout=layout, **wanted)
