"""Gymnasium's environments: those that say texts, and those with few states and actions that can draw them as text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from qredit.environments.adapters._adapter import Adapter, choose_seed
from qredit.environments.protocol import EnvironmentFactory, Step
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error, to_one_line

_NUMBER = re.compile(r"\d+")
_COLOURED = re.compile(r"\x1b\[[\d;]*m(.*?)\x1b\[0m", re.DOTALL)


@dataclass
class GymnasiumGame:
    """One environment of Gymnasium.

    What is read is the observation where it is a text, else the drawing of `render_mode="ansi"`. An action is passed on
    as it is, or, where actions are numbered, as the last number in it; without a right one nothing is done, and
    `Step.info` counts it as unknown_actions. A numbered observation names the state, and so does a text `state_key` in
    the information of a step.

    Attributes:
        game: the environment.
    """

    game: Any

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Begin by the seed of the row, so that the rollouts of a prompt begin alike."""
        seen, info = self.game.reset(seed=choose_seed(example))
        self.key = self._name_state(seen, info)
        first = [self._read(seen), *([f"Actions: numbers {self._numbers}."] if self._numbers else [])]
        return Step("\n".join(first), state_key=self.key)

    def step(self, action: str) -> Step:
        """What comes of an action."""
        given = self._parse(action)
        if given is None:
            said = f"Write a number {self._numbers}."
            return Step(said, reward=0.0, state_key=self.key, info={"unknown_actions": 1})
        seen, reward, terminated, truncated, info = self.game.step(given)
        self.key = self._name_state(seen, info)
        return Step(
            self._read(seen),
            reward=float(reward),
            done=bool(terminated),
            truncated=bool(truncated) and not terminated,
            state_key=self.key,
        )

    def close(self) -> None:
        """Close it."""
        self.game.close()

    @property
    def _actions(self) -> Any:
        return getattr(self.game, "action_space", None)  # of a class of one's own there may be none

    @property
    def _numbers(self) -> str:
        space = self._actions
        return f"from {space.start} to {space.start + space.n - 1}" if _is_numbered(space) else ""

    def _parse(self, action: str) -> Any:
        space = self._actions
        if not _is_numbered(space):
            return action
        numbers = _NUMBER.findall(action)
        chosen = int(numbers[-1][:9]) if numbers else -1
        return chosen if space.start <= chosen < space.start + space.n else None

    def _read(self, seen: Any) -> str:
        if isinstance(seen, str):
            return seen
        return _COLOURED.sub(r"[\1]", str(self.game.render())).strip()  # colours say where one stands

    def _name_state(self, seen: Any, info: Mapping[str, Any]) -> str | None:
        given = info.get("state_key")
        if given is not None:
            return str(given)
        return str(seen) if _is_numbered(getattr(self.game, "observation_space", None)) else None


def _is_numbered(space: Any) -> bool:
    return type(space).__name__ == "Discrete"


def _is_text(space: Any) -> bool:
    return space is None or type(space).__name__ == "Text"


def wrap(game: Any) -> GymnasiumGame:
    """An environment of Gymnasium as one of ours.

    Raises:
        QreditError: neither text nor drawn as text, or actions that no text says.
    """
    name = type(getattr(game, "unwrapped", game)).__name__
    seen, done = getattr(game, "observation_space", None), getattr(game, "action_space", None)
    if not _is_text(seen) and getattr(game, "render_mode", None) != "ansi":
        raise QreditError(f"environment {name} observes {seen}, no text, and is not made with render_mode='ansi'")
    if not _is_text(done) and not _is_numbered(done):
        raise QreditError(f"environment {name} takes actions of {done}; a text or a number can be said")
    return GymnasiumGame(game)


def find(name: str) -> EnvironmentFactory:
    """What makes the environment of an id, as `gymnasium.make` takes it.

    Raises:
        QreditError: no such id, with the nearest; or an environment that is not text.
    """
    import gymnasium

    try:
        spec = gymnasium.spec(name)
        plain = gymnasium.make(spec)
    except Exception as error:  # its own errors name what is near
        raise QreditError(f"gymnasium:{name}: {to_one_line(summarize_error(error))}") from None
    drawn = not _is_text(plain.observation_space) and "ansi" in plain.metadata.get("render_modes", ())
    plain.close()
    make = partial(gymnasium.make, spec, render_mode="ansi") if drawn else partial(gymnasium.make, spec)
    wrap(make()).close()
    return lambda: wrap(make())


adapter = Adapter("gymnasium", find, ("gymnasium", "Env"), wrap)
