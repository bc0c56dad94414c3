"""Which models the shared prefix serves, and the reason where it does not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

ATTENTION_NAME = "qredit_shared_prefix"  # of our attention among those of transformers
Check = Callable[[PreTrainedModel, Any], str | None]


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """Why a causal language model cannot compute a prompt once for its group, in words; None where it can."""
    config = model.config.get_text_config()
    return next((reason for check in CHECKS if (reason := check(model, config)) is not None), None)


def _layers(model: PreTrainedModel, config: Any) -> str | None:
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        return f"it has {' and '.join(sorted(kinds))} layers"
    if getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None) is not None:
        return f"its attention has a sliding window of {config.sliding_window}"
    return None


def _positions(model: PreTrainedModel, config: Any) -> str | None:
    if not _rotary(model):
        return "its positions are not rotary"
    changing = sorted(get_rope_types(model) & {"dynamic", "longrope"})
    return f"its rotary frequencies depend on the length of the sequence ({', '.join(changing)})" if changing else None


def _rotary(model: PreTrainedModel) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if name.endswith("rotary_emb")]


def get_rope_types(model: PreTrainedModel) -> set[str]:
    """The kinds of rotary positions that a model has, by the names of transformers; empty where it has none."""
    return {kind for module in _rotary(model) for kind in _kinds(getattr(module, "rope_type", None))}


def _kinds(rope_type: str | Mapping[str, str] | None) -> set[str]:
    """The kinds of rotary positions of a module, which may have one for each kind of layer."""
    if rope_type is None:
        return set()
    return set(rope_type.values()) if isinstance(rope_type, Mapping) else {rope_type}


def _attention(model: PreTrainedModel, config: Any) -> str | None:
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be replaced through transformers"
    if config._attn_implementation not in ("sdpa", ATTENTION_NAME):
        return f"its attention implementation is {config._attn_implementation}, not sdpa"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention scores are soft-capped"
    if getattr(config, "kv_lora_rank", None):
        return f"its keys and values are compressed (kv_lora_rank={config.kv_lora_rank})"
    if getattr(config, "attention_dropout", 0.0):
        return f"its attention has dropout ({config.attention_dropout:g})"
    return None


def unwrap_peft(model: Any) -> PreTrainedModel:
    """The model within its adapters."""
    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base


def reruns_detached(model: PreTrainedModel) -> bool:
    """Whether layers run without a graph and again in the backward pass (`use_reentrant`), as checkpointing once did.

    What such a layer hands out beside its result is on no graph.
    """
    checkpointed = (m for m in model.modules() if getattr(m, "gradient_checkpointing", False))
    given = (getattr(getattr(m, "_gradient_checkpointing_func", None), "keywords", {}) for m in checkpointed)
    return any(keywords.get("use_reentrant") is not False for keywords in given)


def unsupported_head_reason(model: PreTrainedModel) -> str | None:
    """How a model's head does more than one linear map, in words; None where it does not."""
    return _head(model, model.config.get_text_config())


def _head(model: PreTrainedModel, config: Any) -> str | None:
    scaled = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
    for name in scaled:
        if getattr(config, name, None) not in (None, 1.0):
            return f"its head changes the logits ({name}={getattr(config, name)})"
    if model.base_model is model:
        return "its layers cannot be called apart from its head"
    head = model.get_output_embeddings()
    return None if isinstance(head, nn.Linear) else "its head is not a linear layer"


def _placement(model: PreTrainedModel, config: Any) -> str | None:
    devices = set((getattr(model, "hf_device_map", None) or {}).values())
    return f"it is spread over {len(devices)} devices" if len(devices) > 1 else None


def _router(model: PreTrainedModel, config: Any) -> str | None:
    return "its router adds a loss of its own" if getattr(config, "output_router_logits", False) else None


CHECKS: Sequence[Check] = (_layers, _positions, _attention, _head, _placement, _router)
