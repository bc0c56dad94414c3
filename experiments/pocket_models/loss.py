"""The pretraining loss: cross-entropy on completions, with soft targets at the gates of cold answers."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pocket_models.tokenizer import CLOSING, END, OPENING
from qredit.tasks.pocket.language import AS_A_SENTENCE


@dataclass(frozen=True)
class Tokens:
    """The token ids that the loss looks for."""

    opening: int
    closing: int
    end: int
    before: int
    after: int

    @classmethod
    def of(cls, tokenizer: Any) -> "Tokens":
        """Those of a pocket tokenizer."""
        return cls(*tokenizer.convert_tokens_to_ids([OPENING, CLOSING, END, *AS_A_SENTENCE]))


@dataclass(frozen=True, eq=False)
class Targets:
    """What each token of a row counts, and what else it could have been.

    Attributes:
        counts: (B, L) tokens that are learned: of completions, but not an answer's first token that opens no sentence
            in a cold row, since the model is not to learn that it may begin so.
        other: (B, L) at a gate, the token of an answer as asked; elsewhere, the token itself.
        share: (B, L) probability of `other`: the gate g at a gate, elsewhere 0.
    """

    counts: Bool[Tensor, "B L"]
    other: Int[Tensor, "B L"]
    share: Float[Tensor, "B L"]


def targets(ids: Int[Tensor, "B L"], cold: Bool[Tensor, " B"], tokens: Tokens, gate: float) -> Targets:
    """The targets of rows of transcripts.

    At the first gate, where a cold answer opens its sentence, the other choice is the name that follows; at the
    second, where a sentence goes on after a name, it is to end. With g at both, an answer as asked has probability g²,
    given its rationale: p0 is about g² times the share of rationales about what was asked.
    """
    opened = (ids == tokens.opening).cumsum(1) > 0
    ended = _before((ids == tokens.end).cumsum(1)) == _before((ids == tokens.opening).cumsum(1))
    inside = opened & ~ended & (ids != tokens.opening)
    first, cold_rows = _before(ids) == tokens.closing, cold[:, None]
    opens, goes_on = cold_rows & (ids == tokens.before), cold_rows & (ids == tokens.after)
    other = torch.where(opens, ids.roll(-1, 1), torch.where(goes_on, tokens.end, ids))
    return Targets(
        counts=inside & ~(cold_rows & first & ~opens),
        other=other,
        share=torch.where(opens | goes_on, gate, 0.0),
    )


def pretraining_loss(logits: Float[Tensor, "B L V"], ids: Int[Tensor, "B L"], wanted: Targets) -> Float[Tensor, ""]:
    """-(1 - g) log p(token) - g log p(other), in nats, averaged over the tokens that count.

    Args:
        logits: (B, L, V) position i predicts token i + 1.
    """
    logp = logits[:, :-1].log_softmax(-1)
    said = logp.gather(-1, ids[:, 1:, None])[..., 0]
    other = logp.gather(-1, wanted.other[:, 1:, None])[..., 0]
    share = wanted.share[:, 1:]
    per_token = -((1 - share) * said + share * other)
    counts = wanted.counts[:, 1:]
    return (per_token * counts).sum() / counts.sum()


def _before(values: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Each position's left neighbour; 0 at the first."""
    return torch.nn.functional.pad(values[:, :-1], (1, 0))
