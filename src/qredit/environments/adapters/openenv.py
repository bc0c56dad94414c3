"""OpenEnv's environments, played in this process."""

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qredit.environments.adapters._adapter import Adapter, choose_seed
from qredit.environments.protocol import EnvironmentFactory, Step
from qredit.utils.errors import QreditError
from qredit.utils.imports import import_object
from qredit.utils.sanitize import to_one_line

_OF_ALL_ACTIONS = ("metadata",)
_OF_ALL_OBSERVATIONS = ("done", "reward", "metadata")


@dataclass
class OpenEnvGame:
    """One environment of OpenEnv.

    Where its action has one field, what was said is put there; else it is read as the JSON of an action. What cannot be
    read is not passed on, and `Step.info` counts it as unreadable_actions. An observation of one text is read as it is,
    any other as JSON.

    Attributes:
        game: the environment.
        action: its class of actions.
    """

    game: Any
    action: Any

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Begin by the seed of the row, so that the rollouts of a prompt begin alike."""
        return Step(_read(self.game.reset(seed=choose_seed(example))))

    def step(self, action: str) -> Step:
        """What comes of an action."""
        try:
            made = self._parse(action)
        except ValueError as error:  # that of pydantic is one
            return Step(f"error: {to_one_line(str(error))}", reward=0.0, info={"unreadable_actions": 1})
        seen = self.game.step(made)
        reward = None if seen.reward is None else float(seen.reward)
        return Step(_read(seen), reward=reward, done=bool(seen.done))

    def close(self) -> None:
        """Close it."""
        self.game.close()

    def _parse(self, text: str) -> Any:
        names = [name for name in self.action.model_fields if name not in _OF_ALL_ACTIONS]
        if len(names) == 1:
            return self.action.model_validate({names[0]: text.strip()})
        return self.action.model_validate_json(text)


def _read(seen: Any) -> str:
    values = {name: value for name, value in seen.model_dump(mode="json").items() if name not in _OF_ALL_OBSERVATIONS}
    only = next(iter(values.values()), "")
    return only if len(values) < 2 and isinstance(only, str) else json.dumps(values, ensure_ascii=False)


def wrap(game: Any) -> OpenEnvGame:
    """An environment of OpenEnv as one of ours.

    Raises:
        QreditError: its step does not say what class its actions have.
    """
    try:
        action = typing.get_type_hints(type(game).step).get("action")
    except NameError:  # types that are imported for checkers alone
        action = None
    own = [name for name in getattr(action, "model_fields", ()) if name not in _OF_ALL_ACTIONS]
    if not own:
        raise QreditError(
            f"environment {type(game).__name__}: its step(action) needs the type of its own actions, with fields; a "
            "text is read into it"
        )
    return OpenEnvGame(game, action)


def find(name: str) -> EnvironmentFactory:
    """What makes the environment of an import path, module:Class.

    Raises:
        QreditError: it cannot be imported, or makes no environment of OpenEnv.
    """
    make = import_object(name)
    try:
        made = make()
    except Exception as error:
        raise QreditError(f"openenv:{name} cannot be made: {type(error).__name__}: {error}") from None
    if not adapter.fits(type(made)):
        raise QreditError(f"openenv:{name} makes a {type(made).__name__}, no environment of OpenEnv")
    wrap(made).close()
    return lambda: wrap(make())


adapter = Adapter("openenv", find, ("openenv.core.env_server.interfaces", "Environment"), wrap)
