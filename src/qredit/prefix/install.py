"""Scoring a layout inside the model's own forward, so that wrappers (DDP, PEFT) see an ordinary call."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from qredit.prefix import attention  # noqa: F401  # registers itself with transformers
from qredit.prefix.decode import Decoding
from qredit.prefix.head import token_scores
from qredit.prefix.layout import Layout, Packing, Repeated
from qredit.prefix.support import NAME, changed_head, inside, why_not


@dataclass
class TokenScores(ModelOutput):  # type: ignore[misc]
    """log-probability and entropy (S,) of a layout's scored tokens."""

    logp: Float[Tensor, " S"] | None = None
    entropy: Float[Tensor, " S"] | None = None


def install(model: PreTrainedModel) -> None:
    """Let `model(layout=…)` score tokens and `Decoder` decode; every other call is as before.

    The head runs inside forward: a backbone called past its wrapper would leave gradients unsynchronised without an
    error.
    """
    ordinary = model.forward

    @functools.wraps(type(model).forward)  # generate reads the signature
    def forward(
        *args: Any,
        layout: Layout | None = None,
        decoding: Decoding | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> Any:
        if decoding is not None:
            return _next_logits(model, layout, decoding, **kwargs)
        if layout is not None:
            return _scores(model, layout, temperature)
        return ordinary(*args, **kwargs)

    model.forward = forward


def scores_tokens(model: PreTrainedModel) -> bool:
    """Prepare a model, once, to score a layout's tokens through its own head; whether its head allows it."""
    base = inside(model)
    if getattr(base, "scores_tokens", False):
        return True
    if changed_head(base) is not None:
        return False
    install(base)
    base.scores_tokens = True
    return True


def share_prefix(model: PreTrainedModel) -> str | None:
    """Prepare a model, once, to compute each prompt once; why not, if it cannot. Adapters are looked through.

    The attention implementation is set for good, because a checkpointed layer runs again in the backward pass; without
    a packing it is SDPA.
    """
    base = inside(model)
    if getattr(base, "shares_prefix", False):
        return None
    reason = why_not(base)
    if reason is None and scores_tokens(base):
        base.set_attn_implementation(NAME)
        base.shares_prefix = True
    return reason


def score(
    model: nn.Module, layout: Layout, temperature: float = 1.0
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """log-probability and entropy of each completion token, 0 where none stands; through the wrapped model.

    Args:
        temperature: logits are divided by it.
    """
    found = model(layout=layout, temperature=temperature)
    return layout.spread(found.logp), layout.spread(found.entropy)


def _hidden(model: PreTrainedModel, ids: Tensor, positions: Tensor, **more: Any) -> Float[Tensor, "B N E"]:
    found: Tensor = model.base_model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=ids.new_zeros(1, 1, 1, 1),  # four dimensions: taken as it is, and read by nothing
        use_cache=False,
        **more,
    ).last_hidden_state
    return found


def _next_logits(
    model: PreTrainedModel,
    prompts: Layout | None,
    decoding: Decoding,
    input_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    **unused: Any,
) -> Float[Tensor, "B V"]:
    """Logits of the token after each prompt, or after each row's newest token."""
    if isinstance(prompts, Packing):
        hidden = _hidden(model, prompts.ids, prompts.positions, shared_prefix=prompts, decoding=decoding)
        hidden = hidden[0, prompts.predictor]
    else:
        assert input_ids is not None
        assert position_ids is not None
        hidden = _hidden(model, input_ids, position_ids, decoding=decoding)[:, -1]
    logits: Tensor = model.get_output_embeddings()(hidden)
    return logits.float()


def _scores(model: PreTrainedModel, layout: Layout, temperature: float) -> TokenScores:
    if isinstance(layout, Packing):
        hidden = _hidden(model, layout.ids, layout.positions, shared_prefix=layout)
    else:
        assert isinstance(layout, Repeated)
        hidden = model.base_model(input_ids=layout.ids, attention_mask=layout.mask, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    with torch.autocast(hidden.device.type, enabled=False):
        logp, entropy = token_scores(
            hidden.flatten(0, 1)[layout.predictor], head.weight, head.bias, layout.target, temperature
        )
    return TokenScores(logp=logp, entropy=entropy)
