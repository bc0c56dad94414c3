"""A Sampler over a vLLM engine: a seed for each row, ends found on ids, weights pushed when they have changed."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import nn

from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.protocol import Completion, Request
from qredit.samplers.think_then_answer import think_by_requests
from qredit.samplers.vllm.drawn import DrawnCompletion
from qredit.samplers.vllm.engine import Engine
from qredit.samplers.vllm.weights import iterate_weights
from qredit.utils.seed import derive_seed


@dataclass
class WeightSync:
    """The one place where weights go to an engine.

    Attributes:
        engine: takes them.
        version: tells one state of the weights from another: the step that they are of, and whatever else replaces
            them. Weights of a version that the engine has are not pushed again.
        pushed: the version that it has.
        count: pushes so far.
        seconds: spent on pushes so far; for its reader to set back.
    """

    engine: Engine
    version: Callable[[], Hashable]
    pushed: Hashable = None
    count: int = 0
    seconds: float = 0.0

    def push(self, model: nn.Module) -> None:
        """Give the engine the weights of `model`, unless it has them."""
        version = self.version()
        if version == self.pushed:
            return
        start = time.perf_counter()
        self.pushed = None  # a push that fails half-way leaves an engine of no version
        self.engine.load(iterate_weights(model))
        self.pushed = version
        self.count += 1
        self.seconds += time.perf_counter() - start


@dataclass(frozen=True)
class VllmSampler:
    """Draws with vLLM.

    Row r of a call draws by a seed of its own, a function of the call's seed and of r. So what a row draws does not
    depend on the rows behind it.

    Attributes:
        engine: draws.
        weights: keeps the engine's weights those of the policy.
        draw: the distribution, as a change of the model's own.
    """

    engine: Engine
    weights: WeightSync
    draw: SamplingParams = SamplingParams()

    def sync(self, model: nn.Module) -> None:
        """Draw with the weights of this model from now on."""
        self.weights.push(model)

    def sample(self, requests: Sequence[Request], seed: int) -> list[Completion]:
        """One completion per request. All draws are a function of the requests, their places and `seed`."""
        drawn = [DrawnCompletion(request, derive_seed(seed, place)) for place, request in enumerate(requests)]
        going = list(range(len(drawn)))
        # Once, but for rows that the engine ended at a text that is not there in their ids.
        while self.engine.is_any(bool(going)):
            outputs = self.engine.generate([drawn[place].remainder() for place in going], self.draw)
            for place, output in zip(going, outputs, strict=True):
                drawn[place] = drawn[place].extend(output)
            going = [place for place in going if drawn[place].stop is None]
        return [one.completion() for one in drawn]

    def think(
        self,
        prompts: Sequence[Sequence[int]],
        format: TokenFormat,
        budget: TokenBudget,
        *,
        stop_tokens: Sequence[int],
        seed: int,
    ) -> list[Trajectory]:
        """Rationale, closing and answer for each prompt, by two calls; the engine sleeps behind them, if it may.

        Args:
            prompts: the ids of each prompt, opening included.
            format: the layout of a completion, as ids of this tokenizer.
            budget: the most tokens of thinking and of answer.
            stop_tokens: ids that end a text.
            seed: all draws are a function of it.
        """
        try:
            return think_by_requests(self, prompts, format, budget, stop_tokens=stop_tokens, seed=seed)
        finally:
            self.engine.sleep()
