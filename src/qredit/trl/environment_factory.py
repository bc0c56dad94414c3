"""TRL's `environment_factory`: classes whose public methods are the tools of an episode.

    class Counter:
        def reset(self, **row) -> str | None: ...      # a text is put right behind the last message of the prompt
        def add(self, number: int) -> str: ...         # a tool, told by its docstring
        def get_reward(self) -> float: ...             # may be left out; asked once, when the episode is over

A mapping of names to such factories gives each row the environment that its column `environment` names, and shows it
that environment's tools alone. Objects are made once and reset often, one for each rollout of a generation.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from datasets import Dataset

from qredit.engine.sampling import strip_id_columns
from qredit.environments.beginning import Beginning, Template
from qredit.environments.budget import EpisodeBudget
from qredit.environments.calls import PLAIN, CallForm, detect_call_form
from qredit.environments.episode import EpisodePlayer
from qredit.environments.event_loop import run_coroutine
from qredit.environments.observation import ObservationFormat
from qredit.environments.protocol import EnvironmentFactory, Step
from qredit.environments.source import EpisodeSource
from qredit.environments.tool_environment import ToolEnvironment, list_schemas
from qredit.environments.tool_worker import MOST_CHARACTERS, SECONDS, ToolFault, ToolResult, ToolWorker
from qredit.environments.tools import Tool, make_tools
from qredit.rollouts.format import Prompt, TokenFormat
from qredit.utils.errors import QreditError, unknown_name_error

COLUMN = "environment"
"""Names the environment of a row, where there are several."""
_NO_TOOLS = ("reset", "get_reward")
Factory = Callable[[], Any]


@dataclass(frozen=True)
class FactoryKind:
    """What is known of the environments that one factory makes.

    Attributes:
        factory: makes one.
        type: their class.
        tools: their public methods, and the tools that all rows have.
    """

    factory: Factory = field(repr=False)
    type: type
    tools: tuple[Tool, ...]

    @property
    def has_reward(self) -> bool:
        """Whether they know what an episode earned."""
        return "get_reward" in list_methods(self.type)

    @cached_property
    def by_name(self) -> Mapping[str, Tool]:
        """The tools by their names."""
        return {tool.name: tool for tool in self.tools}


def list_methods(kind: type) -> list[str]:
    """The public methods of a class in the order of their names, which is TRL's; properties are none."""
    found = inspect.getmembers(kind, predicate=inspect.isfunction)
    return [name for name, _ in found if not name.startswith("_")]


def read_factory(factory: Any, name: str, tools: Iterable[Callable[..., Any]]) -> tuple[FactoryKind, Any]:
    """What a factory makes, and the first one made.

    Args:
        factory: a class, or a function without parameters.
        name: what errors call it.
        tools: functions that all rows may call.

    Raises:
        QreditError: it cannot be called or fails, what it makes has no reset, or a public method that is no tool.
    """
    if not callable(factory):
        raise QreditError(f"environment_factory {name} must be a class or a function, got {type(factory).__name__}")
    try:
        made = factory()
    except Exception as error:
        raise QreditError(f"environment_factory {name} fails: {type(error).__name__}: {error}") from None
    methods = list_methods(type(made))
    if "reset" not in methods:
        raise QreditError(f"environment_factory {name}: {type(made).__name__} has no method reset(**row)")
    functions = [*tools, *(getattr(made, method) for method in methods if method not in _NO_TOOLS)]
    if not functions:
        raise QreditError(f"environment_factory {name}: {type(made).__name__} has no public method to be a tool")
    return FactoryKind(factory, type(made), make_tools(functions)), made


@dataclass
class EnvironmentPool:
    """Objects by the name of their factory, made as they are needed and used again.

    Attributes:
        made: all of them.
        playing: those of the episodes that were last played, in their order: what reward functions get.
    """

    made: dict[str | None, list[Any]]
    playing: list[Any] = field(default_factory=list)

    def hand_out(self, names: Sequence[str | None], kinds: Mapping[str | None, FactoryKind]) -> list[Any]:
        """One for each episode, each object once.

        Args:
            names: of the factory for each episode.
            kinds: the factories by name.
        """
        used = dict.fromkeys(kinds, 0)
        self.playing = []
        for name in names:
            if used[name] == len(self.made[name]):
                self.made[name].append(kinds[name].factory())
            self.playing.append(self.made[name][used[name]])
            used[name] += 1
        return self.playing


@dataclass
class FactoryEnvironment:
    """One episode with an object of a factory."""

    instance: Any
    calls: ToolEnvironment
    several: bool

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Reset the object to the row; the seed is not passed on, for TRL's environments take none."""
        row = {name: value for name, value in example.items() if not (self.several and name == COLUMN)}
        said = self.instance.reset(**row)
        if said is not None and not isinstance(said, str):
            raise TypeError(f"reset must return a text or None, got {type(said).__name__}")
        return Step(said or "")

    def step(self, action: str) -> Step:
        """Run the calls of a text. Without one the episode is over."""
        return self.calls.step(action)

    def finish(self) -> float | None:
        """What the object says that the episode earned."""
        if "get_reward" not in list_methods(type(self.instance)):
            return None
        return _wait(self.instance.get_reward())  # type: ignore[no-any-return]

    def close(self) -> None:
        """Nothing is given back here: the object plays again."""


def run_method(instance: Any, name: str, arguments: Mapping[str, Any]) -> ToolResult:
    """What a method gives, as `str` writes it, or the exception that it raises as a fault.

    Args:
        instance: whose method it is.
        name: of the method.
        arguments: by name.
    """
    try:
        return ToolResult(str(_wait(getattr(instance, name)(**arguments)))[: MOST_CHARACTERS + 1])
    except Exception as error:  # whatever it raises is an answer to the call
        return ToolResult(f"{type(error).__name__}: {error}"[:MOST_CHARACTERS], ToolFault.ERROR)


def _wait(value: Any) -> Any:
    return run_coroutine(value) if inspect.iscoroutine(value) else value


@dataclass(frozen=True)
class FactorySource(EpisodeSource):
    """What `environment_factory` gives, with functions that all rows may call.

    Attributes:
        kinds: what the factories make, by name; the only one has the name None.
        pool: the objects.
        shared: functions that all rows may call, in a process of their own.
    """

    kinds: Mapping[str | None, FactoryKind] = field(default_factory=dict)
    pool: EnvironmentPool = field(default_factory=lambda: EnvironmentPool({}))
    shared: tuple[Tool, ...] = ()

    @classmethod
    def read(
        cls, factories: Any, tools: Iterable[Callable[..., Any]] | None = None, seconds: float = SECONDS
    ) -> "FactorySource":
        """What these are.

        Args:
            factories: one, or several by name.
            tools: functions that all rows may call.
            seconds: the most that one call of such a function may take.

        Raises:
            QreditError: as `read_factory`; no factory at all, two tools of one name, no time.
        """
        if not seconds > 0:
            raise QreditError(f"tool_seconds must be more than 0, got {seconds}")
        several = isinstance(factories, Mapping)
        if several and not factories:
            raise QreditError("environment_factory holds no factory")
        named = factories if several else {None: factories}
        functions = list(tools or ())
        read = {
            name: read_factory(one, str(name or getattr(one, "__name__", type(one).__name__)), functions)
            for name, one in named.items()
        }
        kinds = {name: kind for name, (kind, _) in read.items()}
        union = {tool.name: tool for kind in kinds.values() for tool in kind.tools}
        return cls(
            tools=tuple(union.values()),
            seconds=seconds,
            kinds=kinds,
            pool=EnvironmentPool({name: [made] for name, (_, made) in read.items()}),
            shared=make_tools(functions) if functions else (),
        )

    @property
    def speaks_first(self) -> bool:
        """Any reset may return a text."""
        return True

    @property
    def reads_columns(self) -> bool:
        """Reset is given the whole row."""
        return True

    @property
    def several(self) -> bool:
        """Whether rows choose among factories."""
        return None not in self.kinds

    @cached_property
    def worker(self) -> ToolWorker:
        """The process that runs the functions that all rows may call."""
        return ToolWorker({tool.name: tool.function for tool in self.shared}, self.seconds)

    def add_to_prompt(self, prompt: Prompt, chat: bool) -> Prompt:
        """As for tools.

        Raises:
            QreditError: rows of different tools without a chat template that tells each its own.
        """
        if self.several and not chat:
            raise QreditError("several environments by name need chat messages as prompts: their tools differ")
        return super().add_to_prompt(prompt, chat)

    def check_rows(self, dataset: Dataset, name: str) -> None:
        """Refuse rows that no factory is named for, and columns that a reset does not take.

        Args:
            dataset: as rows are taken from it.
            name: what errors call it.

        Raises:
            QreditError: names the row or the column, and what there is.
        """
        columns = set(strip_id_columns(dict.fromkeys(dataset.column_names)))
        if self.several and COLUMN not in columns:
            raise QreditError(f"{name} has no column '{COLUMN}', which names the environment of each row")
        for row, asked in enumerate(dataset[COLUMN][:] if self.several else ()):
            if asked not in self.kinds:
                raise QreditError(f"{name}, row {row}: {unknown_name_error(COLUMN, str(asked), map(str, self.kinds))}")
        given = dict.fromkeys(columns - {COLUMN} if self.several else columns)
        for kind in self.kinds.values():
            signature = inspect.signature(kind.type.reset)  # type: ignore[attr-defined]
            try:
                signature.bind(None, **given)
            except TypeError as error:
                raise QreditError(
                    f"{kind.type.__name__}.reset{signature} does not take the columns of {name}: {error}; they are "
                    f"{', '.join(sorted(given))}, and reset(self, **row) takes all"
                ) from None

    def make_player(
        self, tokens: TokenFormat, chat: bool, template: Mapping[str, Any], budget: EpisodeBudget
    ) -> EpisodePlayer:
        """What plays episodes; see `EpisodeSource.make_player`.

        Args:
            tokens: the layout of a turn, as ids of this tokenizer.
            chat: prompts go through the chat template.
            template: its switches, with all tools that there are.
            budget: the most that an episode may take.
        """
        form = detect_call_form(tokens.tokenizer, template) if chat else PLAIN
        observations = ObservationFormat(tokens, chat, template)
        if budget.turns > 1:
            observations.check(budget.observation, tool=True)

        def find_template(row: Mapping[str, Any]) -> Template:
            return {**template, "tools": list_schemas(self.kinds[row[COLUMN]].tools)}

        return EpisodePlayer(
            *(partial(self.hand_out, form), tokens, budget, observations, form),
            beginning=Beginning(put_behind, find_template if self.several else None),
        )

    def hand_out(self, form: CallForm, rows: Sequence[Mapping[str, Any]]) -> list[EnvironmentFactory]:
        """What makes the environment of each row, all played together: each has an object of its own.

        Args:
            form: how tools are called.
            rows: of the data.
        """
        names = [row[COLUMN] if self.several else None for row in rows]
        objects = self.pool.hand_out(names, self.kinds)
        return [partial(self.begin, form, self.kinds[name], one) for name, one in zip(names, objects, strict=True)]

    def begin(self, form: CallForm, kind: FactoryKind, instance: Any) -> FactoryEnvironment:
        """An episode with an object.

        Args:
            form: how tools are called.
            kind: of the object.
            instance: the object.
        """

        def run(tool: str, arguments: Mapping[str, Any]) -> ToolResult:
            apart = tool in self.worker.functions
            return self.worker.call(tool, arguments) if apart else run_method(instance, tool, arguments)

        return FactoryEnvironment(instance, ToolEnvironment(kind.by_name, form, run), self.several)


def put_behind(prompt: Prompt, text: str) -> Prompt:
    """The prompt with a text right behind its last message, as TRL puts it: nothing stands between.

    Raises:
        QreditError: a last message that holds no text.
    """
    if isinstance(prompt, str):
        return prompt + text
    last = prompt[-1]
    if not isinstance(last.get("content"), str):
        raise QreditError("the last message of the prompt holds no text that something could be put behind")
    return [*prompt[:-1], {**last, "content": last["content"] + text}]


def make_rewards(source: FactorySource) -> list[Callable[..., Any]]:
    """A reward function for each class that knows what an episode earned, named after it; a dictionary may name one
    class twice. Rows of other classes are not scored by it.
    """
    types = dict.fromkeys(kind.type for kind in source.kinds.values() if kind.has_reward)
    return [_make_reward(kind, source) for kind in types]


def _make_reward(kind: type, source: FactorySource) -> Callable[..., Any]:
    def reward(
        completions: Sequence[Any], episode_reward: Sequence[float | None] | None = None, **columns: Any
    ) -> list[float | None]:
        earned = [None] * len(completions) if episode_reward is None else episode_reward
        names = columns[COLUMN] if source.several else [None] * len(completions)
        return [value if source.kinds[name].type is kind else None for value, name in zip(earned, names, strict=True)]

    reward.__name__ = kind.__name__
    return reward


def with_weights(args: Any, own: Sequence[Any]) -> Any:
    """The settings of a run with the weight 1 for the rewards of environments, behind those of the user's functions.

    Args:
        args: of the trainer.
        own: rewards of environments.
    """
    if args.reward_weights is None or not own:
        return args
    args = copy.copy(args)  # the user's own stay as they are: they may make another trainer
    args.reward_weights = [*args.reward_weights, *[1.0] * len(own)]
    return args


def choose_source(
    tools: Iterable[Callable[..., Any]] | None, environment: Any, factories: Any, seconds: float
) -> EpisodeSource | None:
    """What a run plays with; None where it plays nothing.

    Args:
        tools: functions with types and a docstring.
        environment: a class of environments, or a function that makes one.
        factories: TRL's `environment_factory`.
        seconds: the most that one call of a tool may take.

    Raises:
        QreditError: as `EpisodeSource.of` and `FactorySource.read`; environments of both kinds.
    """
    if factories is None:
        return EpisodeSource.of(tools, environment, seconds)
    if environment is not None:
        raise QreditError("give environment or environment_factory: an episode has one environment")
    return FactorySource.read(factories, tools, seconds)
