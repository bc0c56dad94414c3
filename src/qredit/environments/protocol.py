"""What an environment is: it is reset to an example, takes actions, and says what came of each."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from qredit.utils.errors import QreditError

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """What an environment says at the beginning of an episode, or to an action.

    Attributes:
        observation: what the model reads next: a text, which a chat shows as a user's, or chat messages.
        reward: of the action alone; None where nothing is said of it.
        done: the episode is over.
        truncated: it is over because of a limit of the environment's own, and not by what was done.
        state_key: names the state that the environment is in now. Equal keys are equal states.
        info: counts of what happened, such as calls of tools, for metrics.
    """

    observation: str | Messages = ""
    reward: float | None = None
    done: bool = False
    truncated: bool = False
    state_key: str | None = None
    info: Mapping[str, float] = field(default_factory=dict)


class Environment(Protocol):
    """One episode at a time. An object is made for each episode and closed behind it.

    It may have a method `finish()`, too: what the whole episode earned, a number or None. It is asked once, behind the
    last turn, however the episode ended, and added to the reward of that turn.
    """

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Begin an episode. Its observation is put at the end of the prompt.

        The rollouts of a prompt form a group, so this observation must be a function of the example alone. What happens
        later may depend on the seed, which is each episode's own.
        """
        ...

    def step(self, action: str) -> Step:
        """What comes of an action: of the text that the model said in its turn, without its thinking."""
        ...

    def close(self) -> None:
        """Give back what the episode held."""
        ...


EnvironmentFactory = Callable[[], Environment]
"""Makes an environment: usually its class."""


def check_factory(make: Any, name: str) -> EnvironmentFactory:
    """What makes environments, if an environment comes of it.

    Args:
        make: a class, or a function without parameters.
        name: what errors call it.

    Raises:
        QreditError: it cannot be called, fails, or makes something without `reset(example, seed)` or `step(action)`.
    """
    if not callable(make):
        raise QreditError(f"environment {name} must be a class or a function that makes one, got {type(make).__name__}")
    try:
        made = make()
    except Exception as error:
        raise QreditError(f"environment {name} cannot be made: {type(error).__name__}: {error}") from None
    for method, parameters in (("reset", ("example", "seed")), ("step", ("action",))):
        found = getattr(made, method, None)
        wanted = f"{method}({', '.join(parameters)})"
        if not callable(found):
            raise QreditError(f"environment {name} has no method {wanted}")
        if not _takes(found, len(parameters)):
            raise QreditError(f"environment {name}: {method}{inspect.signature(found)} must be {wanted}")
    close_quietly(made)
    return make  # type: ignore[no-any-return]


def _takes(method: Callable[..., Any], count: int) -> bool:
    """Whether a method can be called with that many arguments."""
    try:
        inspect.signature(method).bind(*[None] * count)
    except TypeError:
        return False
    return True


def check_step(value: Any) -> Step:
    """The value, if it is a step.

    Raises:
        TypeError, ValueError: it is something else, or a field of it is.
    """
    if not isinstance(value, Step):
        raise TypeError(f"a Step was expected, got {type(value).__name__}")
    if not isinstance(value.observation, str):
        for message in value.observation:
            if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
                raise TypeError("the messages of an observation need a role and a text as content")
    if value.reward is not None and not math.isfinite(value.reward):
        raise ValueError(f"a reward must be a finite number or None, got {value.reward}")
    if value.state_key is not None and not isinstance(value.state_key, str):
        raise TypeError(f"state_key must be a text or None, got {type(value.state_key).__name__}")
    for name, count in value.info.items():
        if not isinstance(name, str) or not isinstance(count, int | float) or not math.isfinite(count):
            raise TypeError(f"info holds finite numbers by name, got {name!r}: {count!r}")
    return value


def collect_earned(environment: Any) -> float | None:
    """What an environment with a method `finish` says that the whole episode earned; None where there is none.

    Raises:
        ValueError: it is no finite number; whatever else `finish` raises.
    """
    finish = getattr(environment, "finish", None)
    earned = finish() if callable(finish) else None
    if earned is not None and not math.isfinite(earned):
        raise ValueError(f"what an episode earned must be a finite number or None, got {earned}")
    return None if earned is None else float(earned)


def close_quietly(environment: Any) -> None:
    """Close an environment that has a `close`; what fails there changes nothing any more."""
    close = getattr(environment, "close", None)
    if not callable(close):
        return
    try:
        close()
    except Exception:
        return
