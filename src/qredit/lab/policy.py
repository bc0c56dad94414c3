"""An enumerable policy: every rationale and every answer of one prompt, with exact probabilities and scores."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TabularPolicy:
    """A tabular autoregressive policy: `length` rationale symbols, a closing symbol, one answer symbol.

    Each conditional is a softmax over its own row of logits, so any distribution over trajectories is reachable:
    p(z_1), p(z_2 | z_1), …, p(close | z), p(y | z). The closing symbol is forced, as when a thinking budget ends; its
    probability depends on parameters of its own, so that a coefficient on it would show in the gradient.

    Attributes:
        theta: (D,) all logits, float64.
        symbols: size of the rationale alphabet.
        length: rationale symbols per trajectory.
        answers: size of the answer alphabet; answer 0 is the gold one.
    """

    theta: Float[Tensor, " D"]
    symbols: int = 3
    length: int = 2
    answers: int = 3

    @classmethod
    def random(
        cls, seed: int, symbols: int = 3, length: int = 2, answers: int = 3, spread: float = 1.0
    ) -> "TabularPolicy":
        """A policy with independent normal logits of standard deviation `spread`."""
        size = _parameters(symbols, length, answers)
        generator = torch.Generator().manual_seed(seed)
        theta = spread * torch.randn(size, dtype=torch.float64, generator=generator)
        return cls(theta, symbols, length, answers)

    @property
    def rationales(self) -> int:
        """Number of distinct rationales, Z = symbols^length."""
        return int(self.symbols**self.length)

    @cached_property
    def strings(self) -> Int[Tensor, "Z length"]:
        """The symbols of each rationale."""
        return torch.tensor(list(product(range(self.symbols), repeat=self.length)))

    def token_logps(self, theta: Float[Tensor, " D"]) -> tuple[Float[Tensor, "Z L"], Float[Tensor, "Z Y"]]:
        """log-probability of each rationale symbol and the closing symbol (Z, length+1), and of each answer (Z, Y)."""
        columns, start = [], 0
        prefix = torch.zeros(self.rationales, dtype=torch.long)
        for position in range(self.length):
            contexts = self.symbols**position
            table = theta[start : start + contexts * self.symbols].view(contexts, self.symbols).log_softmax(1)
            symbol = self.strings[:, position]
            columns.append(table[prefix, symbol])
            prefix = prefix * self.symbols + symbol
            start += contexts * self.symbols
        close = theta[start : start + self.rationales]
        columns.append(torch.nn.functional.logsigmoid(close))
        start += self.rationales
        answer = theta[start:].view(self.rationales, self.answers).log_softmax(1)
        return torch.stack(columns, 1), answer

    @cached_property
    def prior(self) -> Float[Tensor, " Z"]:
        """p(z | x): the closing symbol is forced and no draw."""
        return self.token_logps(self.theta)[0][:, : self.length].sum(1).exp()

    @cached_property
    def answer_logp(self) -> Float[Tensor, "Z Y"]:
        """log p(y | x, z)."""
        return self.token_logps(self.theta)[1]

    @cached_property
    def scores(self) -> tuple[Float[Tensor, "Z L D"], Float[Tensor, "Z Y D"]]:
        """∇_θ of each token's log-probability."""
        tokens, answers = torch.autograd.functional.jacobian(self.token_logps, self.theta)
        return tokens, answers

    @property
    def success(self) -> float:
        """P = Σ_z p(z|x) p(y*|x,z)."""
        return float(self.prior @ self.answer_logp[:, 0].exp())

    def loss_gradient(self, q: float) -> Float[Tensor, " D"]:
        """∇ℓ_q = -P^{-q} ∇P, exactly."""

        def success(theta: Tensor) -> Tensor:
            tokens, answers = self.token_logps(theta)
            return (tokens[:, : self.length].sum(1) + answers[:, 0]).exp().sum()

        gradient: Tensor = torch.autograd.functional.jacobian(success, self.theta)
        return -math.pow(self.success, -q) * gradient


def _parameters(symbols: int, length: int, answers: int) -> int:
    rationales: int = symbols**length
    steps: int = sum(symbols ** (position + 1) for position in range(length))
    return steps + rationales + rationales * answers
