"""What a run plays with: tools or an environment, checked, and put into prompts, the chat template and a player."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qredit.environments.adapters import adapt_factory
from qredit.environments.budget import EpisodeBudget
from qredit.environments.calls import PLAIN, detect_call_form
from qredit.environments.episode import EpisodePlayer, alike
from qredit.environments.observation import ObservationFormat
from qredit.environments.protocol import EnvironmentFactory, check_factory
from qredit.environments.tool_environment import ToolSet, list_schemas
from qredit.environments.tool_worker import SECONDS
from qredit.environments.tools import Tool, describe_tools, make_tools
from qredit.rollouts.format import Prompt, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.utils.errors import QreditError


@dataclass(frozen=True)
class EpisodeSource:
    """Tools, or what makes environments.

    Attributes:
        tools: what may be called; empty where there is an environment.
        make: makes an environment for each episode; None where there are tools.
        seconds: the most that one call of a tool may take.
    """

    tools: tuple[Tool, ...] = ()
    make: EnvironmentFactory | None = None
    seconds: float = SECONDS

    @classmethod
    def of(
        cls, tools: Iterable[Callable[..., Any]] | None, environment: Any, seconds: float = SECONDS
    ) -> "EpisodeSource | None":
        """What these are; None where neither is given.

        Args:
            tools: functions with types and a docstring.
            environment: a class of environments, or a function that makes one.
            seconds: the most that one call of a tool may take.

        Raises:
            QreditError: both are given, a function that is no tool, something that makes no environment, no time.
        """
        if tools and environment is not None:
            raise QreditError("give tools or an environment: an environment with tools of its own calls them itself")
        if environment is not None:
            made = adapt_factory(environment)
            return cls(make=check_factory(made, getattr(made, "__name__", type(made).__name__)))
        if not tools:
            return None
        if not seconds > 0:
            raise QreditError(f"tool_seconds must be more than 0, got {seconds}")
        return cls(tools=make_tools(tools), seconds=seconds)

    @property
    def speaks_first(self) -> bool:
        """Whether something may be said at the end of the prompt."""
        return self.make is not None

    @property
    def reads_columns(self) -> bool:
        """Whether further columns of the data may be read."""
        return self.make is not None or any(tool.reads_example for tool in self.tools)

    def add_to_template(self, template: Mapping[str, Any], chat: bool) -> dict[str, Any]:
        """The switches of the chat template with the schemas of the tools, where prompts go through it."""
        return {**template, "tools": list_schemas(self.tools)} if self.tools and chat else dict(template)

    def add_to_prompt(self, prompt: Prompt, chat: bool) -> Prompt:
        """The prompt with the tools told in it, where no chat template tells them."""
        return describe_tools(prompt, self.tools) if self.tools and not chat else prompt

    def make_player(
        self, tokens: TokenFormat, chat: bool, template: Mapping[str, Any], budget: EpisodeBudget
    ) -> EpisodePlayer:
        """What plays episodes.

        Args:
            tokens: the layout of a turn, as ids of this tokenizer.
            chat: prompts go through the chat template.
            template: its switches, as `add_to_template` gives them.
            budget: the most that an episode may take.

        Raises:
            QreditError: the chat template cannot hold tools; a budget that holds no observation.
        """
        observations = ObservationFormat(tokens, chat, template)
        if self.make is not None:
            form, make = None, self.make
        else:
            form = detect_call_form(tokens.tokenizer, template) if chat else PLAIN
            make = ToolSet(self.tools, form, self.seconds).make
        if budget.turns > 1:
            observations.check(budget.observation, tool=self.make is None)
        return EpisodePlayer(alike(make), tokens, budget, observations, form)

    def whole_budget(self, budget: EpisodeBudget, tokens: TokenFormat) -> TokenBudget:
        """Room for a whole episode as if it were one turn: its last answer, and all that stands before it.

        Args:
            budget: the most that an episode may take.
            tokens: the layout of a turn, as ids of this tokenizer.
        """
        closing = len(tokens.close_ids)
        first = budget.observation if self.speaks_first else 0  # what reset says stands in the prompt
        return _WholeEpisode(budget.longest(closing) - closing + first, budget.turn.answer)


class _WholeEpisode(TokenBudget):
    """Room for an episode."""

    @property
    def terms(self) -> tuple[str, str]:
        """What errors call the tokens before the answer, and what they advise where there are too many."""
        return "for turns and observations", "lower max_turns, observation_budget or max_completion_length"


def is_all_chat(prompts: Sequence[Prompt]) -> bool:
    """Whether prompts are messages.

    Raises:
        QreditError: some are and others are texts, so that turns would be written in two ways.
    """
    kinds = {isinstance(prompt, str) for prompt in prompts}
    if len(kinds) > 1:
        raise QreditError("with tools or an environment prompts must all be texts, or all be messages")
    return kinds == {False}
