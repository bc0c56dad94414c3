"""The forward pass over a packing, inside the model's own forward: wrappers (DDP, PEFT) see an ordinary call."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from qredit.prefix.attention import NAME
from qredit.prefix.decode import Decoding
from qredit.prefix.head import token_scores
from qredit.prefix.layout import Packing
from qredit.prefix.support import why_not


@dataclass
class PackedScores(ModelOutput):  # type: ignore[misc]
    """log-probability and entropy (S,) of the packing's scored tokens."""

    logp: Float[Tensor, " S"] | None = None
    entropy: Float[Tensor, " S"] | None = None


def install(model: PreTrainedModel) -> None:
    """Let `model(shared_prefix=packing)` score a packing, and `Decoder` decode; every other call is as before.

    The head runs inside forward: a backbone called past its wrapper would leave gradients unsynchronised without an
    error. The attention implementation is set once, because a checkpointed layer runs again in the backward pass.
    """
    ordinary = model.forward
    model.set_attn_implementation(NAME)

    @functools.wraps(type(model).forward)  # generate reads the signature
    def forward(
        *args: Any,
        shared_prefix: Packing | None = None,
        decoding: Decoding | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> Any:
        if decoding is not None:
            return _next_logits(model, shared_prefix, decoding, **kwargs)
        if shared_prefix is not None:
            return _scores(model, shared_prefix, temperature)
        return ordinary(*args, **kwargs)

    model.forward = forward
    model.shares_prefix = True


def share_prefix(model: PreTrainedModel) -> str | None:
    """Prepare a model, once, if it can be served; why not, if it cannot. Adapters are looked through."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(base, "shares_prefix", False):
        return None
    reason = why_not(base)
    if reason is None:
        install(base)
    return reason


def score(
    model: nn.Module, packing: Packing, temperature: float = 1.0
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """log-probability and entropy of each completion token, 0 where none stands; through the wrapped model.

    Args:
        temperature: logits are divided by it.
    """
    found = model(shared_prefix=packing, temperature=temperature)
    return packing.spread(found.logp), packing.spread(found.entropy)


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
    prompts: Packing | None,
    decoding: Decoding,
    input_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    **unused: Any,
) -> Float[Tensor, "B V"]:
    """Logits of the token after each prompt, or after each row's newest token."""
    if prompts is not None:
        hidden = _hidden(model, prompts.ids, prompts.positions, shared_prefix=prompts, decoding=decoding)
        hidden = hidden[0, prompts.predictor]
    else:
        assert input_ids is not None
        assert position_ids is not None
        hidden = _hidden(model, input_ids, position_ids, decoding=decoding)[:, -1]
    logits: Tensor = model.get_output_embeddings()(hidden)
    return logits.float()


def _scores(model: PreTrainedModel, packing: Packing, temperature: float) -> PackedScores:
    hidden = _hidden(model, packing.ids, packing.positions, shared_prefix=packing)[0, packing.predictor]
    head = model.get_output_embeddings()
    with torch.autocast(hidden.device.type, enabled=False):
        logp, entropy = token_scores(hidden, head.weight, head.bias, packing.target, temperature)
    return PackedScores(logp=logp, entropy=entropy)
