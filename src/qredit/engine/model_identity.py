"""What a checkpoint remembers of the model and the tokenizer that it was trained with."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def describe_model(config: Mapping[str, Any], tokenizer: Any) -> dict[str, str]:
    """The shape of a model and a hash of its tokenizer's vocabulary, as text to compare and to show.

    Weights are no part of it: those change in training. A model whose texts lie in a configuration of their own
    (`text_config`) is described by that one.

    Args:
        config: of the model, as transformers' `to_dict()` gives it.
        tokenizer: has `get_vocab()`.
    """
    shape = config.get("text_config") or config
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    return {
        "model": ", ".join(f"{name} {shape[name]}" for name in _SHAPE if name in shape),
        "tokenizer": hashlib.sha256(vocabulary).hexdigest()[:16],
    }
