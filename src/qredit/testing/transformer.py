"""An enumerable policy that shares its parameters between strings: one transformer layer over the same trajectories."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qredit.testing.policy import EnumerablePolicy


class _Decoder(nn.Module):
    """Token and position embeddings, one causal self-attention layer, a linear head."""

    def __init__(self, vocabulary: int, width: int, hidden: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary + 1, hidden)  # the last one opens the string
        self.position = nn.Embedding(width, hidden)
        self.layer = nn.TransformerEncoderLayer(hidden, 2, 2 * hidden, dropout=0.0, batch_first=True)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        width = ids.shape[1]
        mask = torch.ones(width, width, dtype=torch.bool).triu(1)
        hidden = self.layer(self.token(ids) + self.position(torch.arange(width)), src_mask=mask)
        logits: Tensor = self.head(hidden)
        return logits


@dataclass(frozen=True, eq=False)
class TransformerPolicy(EnumerablePolicy):
    """Rationale symbols, the closing symbol and answers share one vocabulary, one attention layer and one head.

    At each place the softmax runs over the symbols that may stand there, and over the whole vocabulary for the closing
    symbol. Unlike in a table, a coefficient on one token moves the probability of every other.
    """

    hidden: int = 8

    @classmethod
    def random(
        cls, seed: int, symbols: int = 3, length: int = 2, answers: int = 3, hidden: int = 8
    ) -> "TransformerPolicy":
        """A policy with PyTorch's initialisation, a function of `seed` alone.

        Args:
            seed: all draws are a function of it.
            symbols: size of the alphabet.
            length: tokens of a rationale.
            answers: how many answers there are.
            hidden: width.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            decoder = _Decoder(symbols + 1 + answers, length + 2, hidden).double()
        theta = torch.cat([parameter.detach().flatten() for parameter in decoder.parameters()])
        return cls(theta, symbols, length, answers, hidden=hidden)

    @cached_property
    def _shape(self) -> _Decoder:
        return _Decoder(self.symbols + 1 + self.answers, self.length + 2, self.hidden).double()

    def token_logps(self, theta: Float[Tensor, " D"]) -> tuple[Float[Tensor, "Z L"], Float[Tensor, "Z Y"]]:
        opening, closing = self.symbols + 1 + self.answers, self.symbols
        ids = torch.nn.functional.pad(self.strings, (1, 0), value=opening)
        ids = torch.nn.functional.pad(ids, (0, 1), value=closing)
        logits = torch.func.functional_call(self._shape, self._parameters(theta), (ids,))
        symbols = logits[:, : self.length, : self.symbols].log_softmax(-1)
        tokens = symbols.gather(-1, self.strings[..., None])[..., 0]
        close = logits[:, self.length].log_softmax(-1)[:, closing, None]
        return torch.cat([tokens, close], 1), logits[:, -1, closing + 1 :].log_softmax(-1)

    def _parameters(self, theta: Tensor) -> dict[str, Tensor]:
        named = dict(self._shape.named_parameters())
        parts = theta.split([parameter.numel() for parameter in named.values()])
        return {name: part.view(named[name].shape) for name, part in zip(named, parts, strict=True)}
