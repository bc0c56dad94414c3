"""What an enumerable policy is: every rationale and every answer of one prompt, with exact probabilities and scores."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class EnumerablePolicy(ABC):
    """An autoregressive policy over strings of `length` rationale symbols, a closing symbol and one answer symbol.

    The closing symbol is forced, as when a thinking budget ends; its probability has a gradient of its own, so that a
    coefficient on it would show.

    Attributes:
        theta: (D,) all parameters, float64.
        symbols: size of the rationale alphabet.
        length: rationale symbols per trajectory.
        answers: size of the answer alphabet; answer 0 is the gold one.
        right: how many of them are right; those after the first are its aliases.
        observed: places of the rationale that an environment writes: `world_logps` says what with. The policy gives
            these tokens a probability of its own, too, with a gradient, so that a coefficient on one would show.

    Shapes: Z = symbols^length rationales, Y answers, L = length + 1 tokens before the answer, D parameters.
    """

    theta: Float[Tensor, " D"]
    symbols: int = 3
    length: int = 2
    answers: int = 3
    right: int = 1
    observed: tuple[int, ...] = ()

    @abstractmethod
    def token_logps(self, theta: Float[Tensor, " D"]) -> tuple[Float[Tensor, "Z L"], Float[Tensor, "Z Y"]]:
        """log-probability of each rationale symbol and the closing symbol (Z, length+1), and of each answer (Z, Y)."""

    @property
    def rationales(self) -> int:
        """Number of distinct rationales, Z = symbols^length."""
        return int(self.symbols**self.length)

    @cached_property
    def strings(self) -> Int[Tensor, "Z length"]:
        """The symbols of each rationale."""
        return torch.tensor(list(product(range(self.symbols), repeat=self.length)))

    @cached_property
    def logps(self) -> tuple[Float[Tensor, "Z L"], Float[Tensor, "Z Y"]]:
        """`token_logps` at the policy's own parameters, without gradient."""
        with torch.no_grad():
            return self.token_logps(self.theta)

    @cached_property
    def world_logps(self) -> Float[Tensor, "Z length"]:
        """log-probability that the environment writes each observed symbol, 0 elsewhere."""
        return torch.zeros(self.rationales, self.length, dtype=self.theta.dtype)

    @cached_property
    def drawn(self) -> tuple[int, ...]:
        """Places of the rationale that the policy draws."""
        return tuple(place for place in range(self.length) if place not in self.observed)

    def path_logps(self, tokens: Float[Tensor, "Z L"]) -> Float[Tensor, " Z"]:
        """log p(z | x) of policy and environment together, of `token_logps`: the closing symbol is forced, no draw."""
        return tokens[:, self.drawn].sum(1) + self.world_logps.sum(1)

    @cached_property
    def prior(self) -> Float[Tensor, " Z"]:
        """p(z | x)."""
        return self.path_logps(self.logps[0]).exp()

    @cached_property
    def answer_logp(self) -> Float[Tensor, "Z Y"]:
        """log p(y | x, z)."""
        return self.logps[1]

    @cached_property
    def log_w(self) -> Float[Tensor, " Z"]:
        """log w of each rationale: of the probability that the answer behind it is right."""
        return self.answer_logp[:, : self.right].logsumexp(1)

    @cached_property
    def scores(self) -> tuple[Float[Tensor, "Z L D"], Float[Tensor, "Z Y D"]]:
        """∇_θ of each token's log-probability."""
        tokens, answers = torch.autograd.functional.jacobian(self.token_logps, self.theta)
        return tokens, answers

    @cached_property
    def joint_score(self) -> Float[Tensor, "Z D"]:
        """∇_θ log p(z, y* | x): what one rationale followed by a right answer contributes."""
        tokens, answers = self.scores
        share = self.answer_logp[:, : self.right].softmax(1)
        return tokens[:, self.drawn].sum(1) + torch.einsum("zr,zrd->zd", share, answers[:, : self.right])

    @property
    def success(self) -> float:
        """P = Σ_z p(z|x) w_z, w_z = Σ over right answers y of p(y|x,z)."""
        return float(self.prior @ self.log_w.exp())

    @cached_property
    def success_gradient(self) -> Float[Tensor, " D"]:
        """∇P, by differentiating the sum over rationales and right answers itself."""

        def success(theta: Tensor) -> Tensor:
            tokens, answers = self.token_logps(theta)
            return (self.path_logps(tokens)[:, None] + answers[:, : self.right]).exp().sum()

        gradient: Tensor = torch.autograd.functional.jacobian(success, self.theta)
        return gradient

    def loss_gradient(self, q: float) -> Float[Tensor, " D"]:
        """∇ℓ_q = -P^{-q} ∇P, exactly."""
        return -math.pow(self.success, -q) * self.success_gradient


@dataclass(frozen=True, eq=False)
class TabularPolicy(EnumerablePolicy):
    """Each conditional is a softmax over its own row of logits, so any distribution over trajectories is reachable.

    p(z_1), p(z_2 | z_1), …, p(close | z), p(y | z), all logits concatenated in `theta`.
    """

    @classmethod
    def random(
        cls, seed: int, symbols: int = 3, length: int = 2, answers: int = 3, spread: float = 1.0
    ) -> "TabularPolicy":
        """A policy with independent normal logits of standard deviation `spread`.

        Args:
            seed: all draws are a function of it.
            symbols: size of the alphabet.
            length: tokens of a rationale.
            answers: how many answers there are.
            spread: standard deviation of the logits.
        """
        size = _parameters(symbols, length, answers)
        generator = torch.Generator().manual_seed(seed)
        theta = spread * torch.randn(size, dtype=torch.float64, generator=generator)
        return cls(theta, symbols, length, answers)

    def token_logps(self, theta: Float[Tensor, " D"]) -> tuple[Float[Tensor, "Z L"], Float[Tensor, "Z Y"]]:
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


@dataclass(frozen=True, eq=False)
class TurnPolicy(TabularPolicy):
    """A policy in a stochastic environment: it acts, reads what the environment draws, and thinks before it answers.

        p(action) · world(observation | action) · p(thought | action, observation) · p(y | …)

    Attributes:
        world: (symbols, symbols) probability of each observation behind each action.
    """

    symbols: int = 2
    length: int = 3
    answers: int = 2
    observed: tuple[int, ...] = (1,)
    world: Float[Tensor, "S S"] = field(default_factory=lambda: torch.tensor([[0.7, 0.3], [0.2, 0.8]]).double())

    @cached_property
    def world_logps(self) -> Float[Tensor, "Z length"]:
        """log-probability that the environment writes each observed symbol, 0 elsewhere."""
        told = torch.zeros(self.rationales, self.length, dtype=self.theta.dtype)
        told[:, 1] = self.world[self.strings[:, 0], self.strings[:, 1]].log()
        return told


def _parameters(symbols: int, length: int, answers: int) -> int:
    rationales: int = symbols**length
    steps: int = sum(symbols ** (position + 1) for position in range(length))
    return steps + rationales + rationales * answers
