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
from qredit.prefix.head import token_scores
from qredit.prefix.packing import Packing


@dataclass
class PackedScores(ModelOutput):  # type: ignore[misc]
    """log-probability and entropy (S,) of the packing's scored tokens."""

    logp: Float[Tensor, " S"] | None = None
    entropy: Float[Tensor, " S"] | None = None


def install(model: PreTrainedModel, temperature: float) -> None:
    """Let `model(shared_prefix=packing)` score a packing; every other call is as before.

    The head runs inside forward: a backbone called past its wrapper would leave gradients unsynchronised without an
    error. The attention implementation is set once, because a checkpointed layer runs again in the backward pass.

    Args:
        temperature: logits are divided by it.
    """
    ordinary = model.forward
    model.set_attn_implementation(NAME)

    @functools.wraps(type(model).forward)  # generate reads the signature
    def forward(*args: Any, shared_prefix: Packing | None = None, **kwargs: Any) -> Any:
        if shared_prefix is None:
            return ordinary(*args, **kwargs)
        return _scores(model, shared_prefix, temperature)

    model.forward = forward


def score(model: nn.Module, packing: Packing) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """log-probability and entropy of each completion token, 0 where none stands; through the wrapped model."""
    found = model(shared_prefix=packing)
    return packing.spread(found.logp), packing.spread(found.entropy)


def _scores(model: PreTrainedModel, packing: Packing, temperature: float) -> PackedScores:
    hidden = model.base_model(
        input_ids=packing.ids,
        position_ids=packing.positions,
        attention_mask=packing.ids.new_zeros(1, 1, 1, 1),  # four dimensions: taken as it is, and read by nothing
        use_cache=False,
        shared_prefix=packing,
    ).last_hidden_state[0, packing.predictor]
    head = model.get_output_embeddings()
    with torch.autocast(hidden.device.type, enabled=False):
        logp, entropy = token_scores(hidden, head.weight, head.bias, packing.target, temperature)
    return PackedScores(logp=logp, entropy=entropy)
