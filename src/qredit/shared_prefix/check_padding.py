"""Whether a model scores a row that is padded to the left as it scores the row alone, tried on a few tokens."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qredit.shared_prefix.share import HALF_TOLERANCE, TOLERANCE, has_all_weights
from qredit.shared_prefix.support import get_rope_types, unwrap_peft
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import to_one_line

_PADDING, _TOKENS = 5, 6
_BY_LENGTH = frozenset({"dynamic", "longrope"})


def check_padding(model: PreTrainedModel, length: int) -> None:
    """Refuse a model whose scores depend on how far its rows are padded; adapters are looked through.

    Args:
        length: the longest row that will be scored, in tokens.

    Raises:
        QreditError: positions that count the padding, by a trial; rotary frequencies that change with the longest
            row of a batch, by its config.
    """
    base = unwrap_peft(model)
    reason = _by_length(base, length)
    if reason is None and has_all_weights(base):
        reason = _by_trial(base)
    if reason is not None:
        raise QreditError(f"rows padded to the left would be scored wrongly by this {type(base).__name__}: {reason}")


def _by_length(base: PreTrainedModel, length: int) -> str | None:
    kinds = sorted(get_rope_types(base) & _BY_LENGTH)
    config = base.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    longest = int(original or getattr(config, "max_position_embeddings", None) or length)
    if not kinds or length <= longest:
        return None
    return (
        f"its rotary frequencies ({kinds[0]}) change with the longest row of a batch beyond {longest} tokens, and "
        f"rows may have {length}; lower max_completion_length"
    )


@torch.no_grad()
def _by_trial(base: PreTrainedModel) -> str | None:
    was_training = base.training
    base.eval()
    try:
        alone = _scores(base, 0)
        found = max(float((_scores(base, padding) - alone).abs().max()) for padding in (1, _PADDING))
    except Exception as error:  # whatever an architecture that we do not know does with it
        return f"a trial failed ({type(error).__name__}: {to_one_line(str(error))})"
    finally:
        base.train(was_training)
    if found <= TOLERANCE.get(base.dtype, HALF_TOLERANCE):
        return None
    return f"a few tokens differ by {found:.2g} nats behind {_PADDING} of padding; its positions count the padding"


def _scores(base: PreTrainedModel, padding: int) -> Tensor:
    """Next-token log-probabilities of a few tokens behind some padding."""
    vocabulary = base.get_input_embeddings().weight.shape[0]
    row = (torch.arange(1, _TOKENS + 1) * 7919 % vocabulary).to(base.device)
    pad = getattr(base.config.get_text_config(), "pad_token_id", None) or 0
    ids = torch.cat([row.new_full((padding,), pad), row])[None]
    mask = (torch.arange(padding + _TOKENS, device=base.device) >= padding).long()[None]
    logits: Tensor = base(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[0, padding:].float().log_softmax(-1)
