"""The rewards that a run is given in one text: registered scorers and a user's own functions, each with a weight."""

import asyncio
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qredit.rewards.answer_scorer import is_not_blank
from qredit.rewards.column_reward import COLUMN_REWARDS, ColumnReward
from qredit.rewards.finite_rewards import add_reward_checks
from qredit.rewards.registry import REGISTRY, get, make_reward_function
from qredit.rewards.tool_use import tool_use
from qredit.tasks.base import Example
from qredit.tasks.task_call import check_arguments, parse_task_call
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.imports import import_object

ENVIRONMENT = "environment"
"""The name of the reward that environments give themselves."""
EPISODE_RULES: Mapping[str, type[tool_use]] = MappingProxyType({"tool_use": tool_use})
"""Rewards with arguments that read what happened in the turns of an episode."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r",(?![^()]*\))")  # one that stands in no brackets
_FROM_US = (
    *("prompts", "completions", "completion_ids", "response", "rationale", "answer", "aliases", "id"),
    *("episode_reward", "turn_counts"),
)
_FROM_TRAINER = ("trainer_state", "log_extra", "log_metric")
_OF_TRAINERS = ("prompt", "completion", "prompt_ids", "answer_ids", "alias_ids", "image", "images", "environments")
# Names that reward functions receive from elsewhere, and those that mean something else to trainers of TRL's kind.
RESERVED = frozenset((*_FROM_US, *_FROM_TRAINER, *_OF_TRAINERS))


@dataclass(frozen=True)
class Response:
    """What a model said to one question, as a reward may read it.

    Attributes:
        prompt: text or chat messages, as the model was asked.
        completion: everything it wrote, thinking included.
        ids: the token ids of that.
        rationale: its thinking.
        answer: what follows its thinking: what scorers judge.
        example: the question with its gold answers.
        episode_reward: what an environment gave for all turns together; None where it gave nothing.
        turn_counts: what was counted in each turn, by name, such as calls of tools; empty without an environment.
    """

    prompt: Any
    completion: str
    ids: tuple[int, ...]
    rationale: str
    answer: str
    example: Example
    episode_reward: float | None = None
    turn_counts: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True)
class Reward:
    """One reward of a run.

    Attributes:
        name: in logs, tables and files.
        weight: in the sum that the objective sees; 0 is only logged.
        function: in the trainer's signature: prompts, completions, completion_ids and columns in, a number or None
            for each row out. Its `__name__` is `name`.
        parses: whether a gold answer can be judged at all; a function of the user's is not asked.
        own: a function of the user's, which may read further columns of the data.
        source: the file that such a function is written in, if it is known.
        by_column: what it judges by where that is a column of the data.
    """

    name: str
    weight: float
    function: Callable[..., Any]
    parses: Callable[[str], bool] = is_not_blank
    own: bool = False
    source: Path | None = None
    by_column: ColumnReward | None = None

    @property
    def reads_columns(self) -> bool:
        """Whether it may read further columns of the data."""
        return self.own or self.by_column is not None

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse examples that it cannot judge, before anything is sampled.

        Raises:
            QreditError: as `ColumnReward.check`.
        """
        if self.by_column is not None:
            self.by_column.check(examples)

    def __call__(self, responses: Sequence[Response]) -> list[float | None]:
        """The reward of each response, unweighted; None for one that is not scored.

        Raises:
            QreditError: the function fails, or returns something else than a finite number or None for each.
        """
        examples = [response.example for response in responses]
        ours: dict[str, list[Any]] = {
            "prompts": [response.prompt for response in responses],
            "completions": [_format_completion(response) for response in responses],
            "completion_ids": [list(response.ids) for response in responses],
            "response": [response.answer for response in responses],
            "rationale": [response.rationale for response in responses],
            **({"answer": [example.answer for example in examples]} if any(one.right for one in examples) else {}),
            "aliases": [list(example.aliases) for example in examples],
            "id": [example.id for example in examples],
        }
        if any(response.episode_reward is not None for response in responses):
            ours["episode_reward"] = [response.episode_reward for response in responses]
        if any(response.turn_counts for response in responses):
            ours["turn_counts"] = [response.turn_counts for response in responses]
        # TRL hands these to every function; outside a trainer there is no state, and nothing is logged.
        trainers = {"trainer_state": None, "log_extra": _not_logged, "log_metric": _not_logged}
        result = self.function(**ours, **collect_columns(examples), **trainers)
        values = asyncio.run(result) if inspect.iscoroutine(result) else result
        return [None if value is None else float(value) for value in values]

    def unparseable(self, examples: Sequence[Example]) -> list[Example]:
        """The examples that can never be rewarded, because neither the answer nor an alias can be read.

        Those without an answer are for rewards that read none.
        """
        return [example for example in examples if example.right and not any(map(self.parses, example.right))]


def environment(
    completions: Sequence[Any], episode_reward: Sequence[float | None] | None = None, **columns: Any
) -> list[float | None]:
    """What the environment gave, summed over the turns of each episode; None where it gave nothing."""
    return [None] * len(completions) if episode_reward is None else list(episode_reward)


def _not_logged(name: str, value: Any) -> None:
    """What TRL's log_extra and log_metric are where nothing is logged."""


def _format_completion(response: Response) -> Any:
    """A completion in the form of its prompt: text, or one message of the assistant."""
    if isinstance(response.prompt, str):
        return response.completion
    return [{"role": "assistant", "content": response.completion}]


def collect_columns(examples: Sequence[Example]) -> Mapping[str, list[Any]]:
    """The further columns of the data, by name; None where a row has none. Reserved names are left out."""
    names = dict.fromkeys(name for example in examples for name in example.columns if name not in RESERVED)
    return {name: [example.columns.get(name) for example in examples] for name in names}


def parse_rewards(text: str) -> tuple[Reward, ...]:
    """The rewards that a text names, such as `numeric` or `math_equal, 0.1 * format, 0 * my_rewards:brevity`.

    A function is named in logs as in its code; by its whole path where that name is taken.

    Raises:
        QreditError: as `parse_reward_names`; a path that cannot be imported.
    """
    found: list[Reward] = []
    for weight, name in parse_reward_names(text):
        taken = [other.name for other in found]
        found.append(_make_ours(weight, name, taken) or _import_reward(weight, name, taken))
    return tuple(found)


def _make_ours(weight: float, name: str, taken: Sequence[str]) -> Reward | None:
    """The reward of ours that is written so; None for an import path."""
    if name == ENVIRONMENT:
        return Reward(name, weight, environment, _any_gold)
    if name in COLUMN_REWARDS:
        judge = COLUMN_REWARDS[name]
        return Reward(name, weight, add_reward_checks(judge.make_function(), name), _any_gold, by_column=judge)
    if name in REGISTRY:
        return Reward(name, weight, make_reward_function(name), REGISTRY[name].parses)
    if (rule := _read_rule(name)) is not None:
        short = type(rule).__name__
        shown = name if short in taken else short
        return Reward(shown, weight, add_reward_checks(rule.make_function(), shown), _any_gold)
    return None


def _any_gold(gold: str) -> bool:
    """That of rewards that read no reference answer: none is one that they cannot read."""
    return True


def _import_reward(weight: float, name: str, taken: Sequence[str]) -> Reward:
    function = import_object(name)
    if inspect.isclass(function) or hasattr(function, "parameters"):
        kind = "a class" if inspect.isclass(function) else "a model"
        raise QreditError(f"reward '{name}' is {kind}; give a function with the signature of TRL's reward functions")
    short = getattr(function, "__name__", name)
    shown = name if short in (*_list_ours(), *taken) else short
    return Reward(shown, weight, add_reward_checks(function, shown), own=True, source=_file_of(function))


def _file_of(function: Any) -> Path | None:
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    return None if file is None else Path(file)


def parse_reward_names(text: str) -> list[tuple[float, str]]:
    """Weight and name, or import path, of each reward in a text; nothing is imported.

    Raises:
        QreditError: none, an unknown scorer, arguments that it does not take, a weight that is no finite number, a name
            that occurs twice.
    """
    found = [_named(part.strip()) for part in _COMMA.split(text) if part.strip()]
    if not found:
        raise QreditError("reward must name at least one scorer or function")
    names = [name for _, name in found]
    for name in names:
        if names.count(name) > 1:
            raise QreditError(f"reward '{name}' is named twice in '{text}'")
    return found


def _named(part: str) -> tuple[float, str]:
    factor, times, rest = part.rpartition("*")
    weight, name = factor.strip(), rest.strip()
    if times and not _NUMBER.fullmatch(weight):
        raise QreditError(f"reward '{part}': what stands before * must be a number, got '{weight}'")
    number = float(weight) if times else 1.0
    if not math.isfinite(number):
        raise QreditError(f"reward '{part}': the weight must be finite, got '{weight}'")
    if _read_rule(name) is None and name not in _list_ours() and ":" not in name and "." not in name:
        raise unknown_name_error("reward", name, [*_list_ours(), "package.module:function"])
    return number, name


def _list_ours() -> tuple[str, ...]:
    """The names of rewards that are no import path."""
    return (*REGISTRY, *COLUMN_REWARDS, ENVIRONMENT, *EPISODE_RULES)


def _read_rule(name: str) -> tool_use | None:
    """The rule that is written with its arguments, such as `tool_use(steps=200)`; None where there are none to read."""
    if "(" not in name and name not in EPISODE_RULES:
        return None
    call = parse_task_call(name, "reward")
    if call.member is not None or call.name not in EPISODE_RULES:
        raise unknown_name_error("reward with arguments", name.partition("(")[0].strip(), EPISODE_RULES)
    check_arguments(f"reward '{name}'", EPISODE_RULES[call.name], call.arguments)
    return EPISODE_RULES[call.name](**call.arguments)


def check_one_turn(text: str | None) -> None:
    """Refuse rewards that read the turns of an episode where rollouts have one.

    Args:
        text: as `parse_rewards`; None is a task's own reward, which reads none.

    Raises:
        QreditError: the first such reward; as `parse_reward_names`.
    """
    for _, name in [] if text is None else parse_reward_names(text):
        if name == ENVIRONMENT or _read_rule(name) is not None:
            raise QreditError(f"reward '{name}' is of episodes with tools or an environment, and here are none")


def choose_eval_rewards(
    rewards: Sequence[Reward], metrics: Sequence[str], examples: Sequence[Example]
) -> tuple[Reward, ...]:
    """What an evaluation judges by: the rewards of training, the first of which decides, then further metrics.

    Args:
        rewards: of training.
        metrics: names of scorers; those that read gold answers are left out where there are none.
        examples: what is asked.
    """
    known, answered = {reward.name for reward in rewards}, any(one.right for one in examples)
    fit = [name for name in metrics if name not in known and (answered or not get(name).reads_gold)]
    return (*rewards, *(reward for name in fit for reward in parse_rewards(name)))


def find_unparseable(name: str, examples: Iterable[Example]) -> list[Example]:
    """The examples that scorer `name` can never reward, because it can read neither the answer nor an alias.

    To be counted and reported before a run: they are scored 0 whatever the model says.
    """
    reward = Reward(name, 1.0, make_reward_function(name), get(name).parses)
    return reward.unparseable(list(examples))
