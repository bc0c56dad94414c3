"""Tools and environments that options name: imported, put into prompts and the chat template, and played."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from qredit.environments.episode import EpisodePlayer
from qredit.environments.names import find_environment, find_tools
from qredit.environments.source import EpisodeSource, is_all_chat
from qredit.environments.tool_worker import SECONDS
from qredit.rollouts.format import Prompt, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.runs.options import TrainOptions


def load_source(options: TrainOptions) -> EpisodeSource | None:
    """The tools or the environment of a run; None where rollouts are one turn.

    Raises:
        QreditError: a path that cannot be imported, a function that is no tool, something that makes no environment.
    """
    if options.env is None and options.tools is None:
        return None
    return _load(options.env, options.tools, SECONDS if options.tool_seconds is None else options.tool_seconds)


@lru_cache(maxsize=1)
def _load(env: str | None, tools: str | None, seconds: float) -> EpisodeSource | None:
    """Imported and checked once: a process with tools belongs to it."""
    functions = None if tools is None else find_tools(tools)
    return EpisodeSource.of(functions, None if env is None else find_environment(env), seconds)


def tell_tools(options: TrainOptions, prompts: Sequence[Prompt]) -> tuple[list[Prompt], Mapping[str, Any]]:
    """The prompts as a model is asked them, and the switches of the chat template: tools are told in one of them.

    Raises:
        QreditError: as `load_source`; texts and messages mixed.
    """
    source = load_source(options)
    if source is None:
        return list(prompts), options.template
    chat = is_all_chat(prompts)
    return [source.add_to_prompt(prompt, chat) for prompt in prompts], source.add_to_template(options.template, chat)


def get_asked_template(options: TrainOptions, prompts: Sequence[Prompt]) -> Mapping[str, Any]:
    """The switches of the chat template, with the schemas of tools where prompts go through it."""
    source = load_source(options)
    return options.template if source is None else source.add_to_template(options.template, is_all_chat(prompts))


def make_player(options: TrainOptions, tokens: TokenFormat, prompts: Sequence[Prompt]) -> EpisodePlayer | None:
    """What plays the episodes of a run; None where rollouts are one turn.

    Args:
        options: of the run.
        tokens: the layout of a turn, as ids of this tokenizer.
        prompts: what is asked, as `tell_tools` gives it.

    Raises:
        QreditError: as `EpisodeSource.make_player`.
    """
    source = load_source(options)
    if source is None:
        return None
    chat = is_all_chat(prompts)
    return source.make_player(tokens, chat, source.add_to_template(options.template, chat), options.episodes)


def get_whole_budget(options: TrainOptions, tokens: TokenFormat) -> TokenBudget:
    """Tokens that may follow a prompt, those of observations among them."""
    source = load_source(options)
    return options.sampling_budget if source is None else source.whole_budget(options.episodes, tokens)
