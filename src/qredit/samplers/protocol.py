"""What every engine that samples has to offer: requests in token ids go in, completions in token ids come out.

Nothing is decoded and encoded again: a prompt is ids, also where a rationale and a forced closing stand at its end, and
what comes back is the ids that were drawn. How they are drawn (temperature, truncation) is the sampler's own setting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

from torch import nn

from qredit.rollouts.format import StopString, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.utils.errors import QreditError


class StopReason(IntEnum):
    """Why a completion stopped; where several hold of its last token, the first of them."""

    END = 0
    MARKER = 1
    LENGTH = 2


@dataclass(frozen=True)
class Request:
    """One completion that is asked for.

    Attributes:
        prompt_ids: what it goes on from.
        max_tokens: most tokens to draw, one at least.
        stop_token_ids: ids of which any one ends it.
        stop_string: a text that ends it, at the first drawn token that completes it within the drawn ones. An engine
            that looks for stop strings by itself takes `stop_string.text`.

    Raises:
        QreditError: no token may be drawn.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    stop_token_ids: frozenset[int] = frozenset()
    stop_string: StopString | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise QreditError(f"a request must allow one token at least; max_tokens is {self.max_tokens}")


@dataclass(frozen=True)
class Completion:
    """What was drawn for a request.

    Attributes:
        ids: the tokens, the one that stopped it included.
        logp: log-probability of each in nats, under the model at the sampling temperature, before any truncation or
            penalty.
        stop: why there are no more.
    """

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    stop: StopReason


class Sampler(Protocol):
    """An engine that draws completions."""

    def sample(self, requests: Sequence[Request], seed: int) -> list[Completion]:
        """One completion per request, in their order. All draws are a function of the requests and of `seed`."""
        ...

    def sync(self, model: nn.Module) -> None:
        """Draw with the weights of `model` from now on."""
        ...


@runtime_checkable
class ThinkingSampler(Sampler, Protocol):
    """A sampler that can close thinking by itself, with the trajectories that `samplers.thinking.think` describes."""

    def think(
        self,
        prompts: Sequence[Sequence[int]],
        format: TokenFormat,
        budget: TokenBudget,
        *,
        stop_tokens: Sequence[int],
        seed: int,
    ) -> list[Trajectory]:
        """One trajectory per prompt, in their order.

        Args:
            prompts: the ids of each prompt, opening included.
            format: the layout of a completion, as ids of this tokenizer.
            budget: the most tokens of thinking and of answer.
            stop_tokens: ids that end a text.
            seed: all draws are a function of it.
        """
        ...


def check_completions(requests: Sequence[Request], completions: Sequence[Completion]) -> list[Completion]:
    """The completions, if they are what was asked for.

    Raises:
        QreditError: there are more or fewer than requests, or one is not as its request says.
    """
    if len(completions) != len(requests):
        raise QreditError(f"the sampler gave {len(completions)} completions to {len(requests)} requests")
    for number, (request, completion) in enumerate(zip(requests, completions, strict=True)):
        fault = _fault(request, completion)
        if fault is not None:
            raise QreditError(f"the sampler's completion of request {number} {fault}")
    return list(completions)


def _fault(request: Request, completion: Completion) -> str | None:
    """What is wrong with a completion, if anything is."""
    ids, count, stop = completion.ids, len(completion.ids), completion.stop
    if len(completion.logp) != count:
        return f"has {count} tokens and {len(completion.logp)} log-probabilities"
    if not 1 <= count <= request.max_tokens:
        return f"has {count} tokens; max_tokens is {request.max_tokens}"
    if not request.stop_token_ids.isdisjoint(ids[:-1]):
        return f"goes on behind a token that ends it, one of {sorted(request.stop_token_ids)}"
    if (stop == StopReason.END) != (ids[-1] in request.stop_token_ids):
        return f"stopped for {stop.name} at token {ids[-1]}; those that end it are {sorted(request.stop_token_ids)}"
    completes = request.stop_string is not None and request.stop_string.length(ids) is not None
    if stop != StopReason.END and (stop == StopReason.MARKER) != completes:
        text = None if request.stop_string is None else request.stop_string.text
        return f"stopped for {stop.name}; its last token {'completes' if completes else 'does not complete'} {text!r}"
    if stop == StopReason.LENGTH and count < request.max_tokens:
        return f"stopped for its length after {count} of {request.max_tokens} tokens"
    return None
