"""A model made ready to compute each prompt once, or why it cannot: by what it is, and by a trial on a few tokens."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from qredit.core.batch import RolloutBatch
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.decode import Decoder
from qredit.shared_prefix.layout import PackedContinuations
from qredit.shared_prefix.packing import pack, pack_continuations, pack_prompts, pad_rows
from qredit.shared_prefix.patch_forward import enable_token_scoring, score, score_selected
from qredit.shared_prefix.support import ATTENTION_NAME, unsupported_reason, unwrap_peft
from qredit.utils.sanitize import to_one_line

TOLERANCE = {torch.float32: 0.01, torch.float64: 1e-6}  # nats that rounding may explain; kernels may use TF32
HALF_TOLERANCE = 0.5


def share_prefix(model: PreTrainedModel) -> str | None:
    """Prepare a model, once, to compute each prompt once; why not, if it cannot. Adapters are looked through.

    The attention implementation is set for good, because a checkpointed layer runs again in the backward pass; without
    a packing it is SDPA.
    """
    base = unwrap_peft(model)
    if not hasattr(base, "why_not_shared"):
        base.why_not_shared = _prepare(base)
    reason: str | None = base.why_not_shared
    return reason


def _prepare(base: PreTrainedModel) -> str | None:
    reason = unsupported_reason(base)
    if reason is not None or not enable_token_scoring(base):
        return reason
    base.set_attn_implementation(ATTENTION_NAME)
    if has_all_weights(base):
        reason = find_mismatch(base)
    if reason is not None:
        base.set_attn_implementation("sdpa")
    return reason


def has_all_weights(model: PreTrainedModel) -> bool:
    """Whether this process holds every weight; where they are sharded already, a model is not tried."""
    return all(parameter.numel() and not parameter.is_meta for parameter in model.parameters())


@torch.no_grad()
def find_mismatch(model: PreTrainedModel) -> str | None:
    """What goes wrong on a few tokens, in words: scoring, scoring on kept prompts, decoding; None where all agree.

    Args:
        model: prepared, without its adapters.
    """
    was_training = model.training
    model.eval()
    try:
        rows = _few_rows(model)
        expected = score(model, pad_rows(rows))["logp"]
        found = max(float((logp - expected).abs().max()) for logp in _score_in_every_way(model, rows))
    except Exception as error:  # whatever an architecture that we do not know does with it
        return f"a trial on a few tokens failed ({type(error).__name__}: {to_one_line(str(error))})"
    finally:
        model.train(was_training)
    if not found <= TOLERANCE.get(model.dtype, HALF_TOLERANCE):
        return f"on a few tokens it gave log-probabilities that differ by {found:.2g} nats"
    return None


def _few_rows(model: PreTrainedModel) -> Rows:
    """Two groups of two rows: prompts of three and two tokens, completions of three and two."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(24) * 7919 % vocabulary).to(model.device)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]] * 2, device=model.device).bool()
    prompt_mask = torch.tensor([[1, 1, 1]] * 2 + [[0, 1, 1]] * 2, device=model.device)
    batch = RolloutBatch(
        mask=mask,
        rationale=mask,
        answer=torch.zeros_like(mask),
        group=torch.tensor([0, 0, 1, 1], device=model.device),
        ids=ids[:12].view(4, 3) * mask,
    )
    return Rows(ids[12:18].view(2, 3).repeat_interleave(2, 0) * prompt_mask, prompt_mask, batch)


def _score_in_every_way(model: PreTrainedModel, rows: Rows) -> Iterator[Float[Tensor, "B T"]]:
    yield score(model, pack(rows))["logp"]
    layout = pack_continuations(pack_prompts(rows), rows)
    seen: list[Tensor] = []

    def choose(told: dict[str, Tensor]) -> PackedContinuations:
        seen.append(told["logp"])
        return layout

    yield score_selected(model, layout, choose)["logp"]
    yield from seen
    yield _decoded(model, rows)


def _decoded(model: PreTrainedModel, rows: Rows) -> Float[Tensor, "B T"]:
    """The log-probabilities that decoding gives to the completions."""
    ids, mask = rows.batch.ids, rows.batch.mask
    assert ids is not None
    pairs = zip(rows.prompt_ids, rows.prompt_mask.bool(), strict=True)
    prompts = [prompt[present].tolist() for prompt, present in pairs]
    decoder = Decoder(model, prompts, ids.shape[1])
    logits, logps = decoder.prefill(), []
    for column in range(ids.shape[1]):
        logps.append(logits.log_softmax(1).gather(1, ids[decoder.rows, column, None]))
        if column + 1 < ids.shape[1]:
            logits = decoder.step(ids[decoder.rows, column])
    logp = torch.cat(logps, 1)
    return torch.empty_like(logp).index_copy_(0, decoder.rows, logp) * mask
