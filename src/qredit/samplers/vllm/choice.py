"""The engine that the settings ask for: one made in this process, or one behind an address."""

from collections.abc import Callable, Iterable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.samplers.vllm.colocate import start_engine
from qredit.samplers.vllm.engine import Engine
from qredit.samplers.vllm.server import connect
from qredit.samplers.vllm.settings import VllmSettings


def open_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: VllmSettings,
    draw: SamplingParams,
    *,
    device: torch.device,
    dtype: str,
    length: int,
    place: int = 0,
    world: int = 1,
    wait: Callable[[], None] = lambda: None,
) -> Engine:
    """An engine for a model, whose weights it does not have yet.

    Args:
        model: the base model, without adapters; its configuration is read.
        tokenizer: of the model.
        settings: as the user gave them.
        draw: how completions are drawn; decides which log-probabilities the engine tells.
        device: where the policy computes.
        dtype: what it computes in.
        length: most tokens of a prompt and its completion.
        place: number of this process.
        world: processes that train together.
        wait: until all of them are here.

    Raises:
        QreditError: settings, a model or a server that cannot be used.
    """
    if settings.mode == "server":
        return connect(settings, model.config, draw, dtype=dtype, length=length, main=place == 0, wait=wait)
    return start_engine(
        model, tokenizer, settings, draw, device=device, dtype=dtype, length=length, place=place, world=world
    )


def measure_longest(prompts: Iterable[Sequence[int]], tokens: TokenFormat, budget: TokenBudget) -> int:
    """Most tokens of a prompt and its completion, which an engine is made for.

    Args:
        prompts: their ids, of at least one.
        tokens: the layout of a completion.
        budget: the most tokens of thinking and of answer.
    """
    return max(map(len, prompts)) + budget.thinking + len(tokens.close_ids) + budget.answer
