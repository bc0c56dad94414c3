"""TextArena's games for one player."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qredit.environments.adapters._adapter import Adapter, choose_seed
from qredit.environments.protocol import EnvironmentFactory, Step
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error, to_one_line

_PLAYER = 0


@dataclass
class TextArenaGame:
    """One game. It is rewarded when it is over: the turn that ends it has the reward of the game.

    `Step.info` counts invalid_moves.

    Attributes:
        game: without wrappers.
    """

    game: Any

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Begin by the seed of the row, so that the rollouts of a prompt begin alike."""
        self.game.reset(num_players=1, seed=choose_seed(example))
        return Step(self._read())

    def step(self, action: str) -> Step:
        """What the game says to a move."""
        done, _ = self.game.step(action)
        said = self._read()
        invalid = {"invalid_moves": 1} if self.game.state.error_count or self.game.state.made_invalid_move else {}
        if not done:
            return Step(said, info=invalid)
        rewards, _ = self.game.close()
        return Step(said, reward=float(rewards[_PLAYER]), done=True, info=invalid)

    def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> str:
        """What was said since the last turn, less the player's own move."""
        _, said = self.game.get_observation()
        return "\n".join(text for speaker, text, *_ in said if speaker != _PLAYER).strip()


def wrap(game: Any) -> TextArenaGame:
    """A game of TextArena as an environment of ours, its wrappers taken off: they would say all again in each turn."""
    while hasattr(game, "env"):
        game = game.env
    return TextArenaGame(game)


def find(name: str) -> EnvironmentFactory:
    """What makes the game of an id.

    Raises:
        QreditError: no such id, with the nearest; a game of several players, or one that cannot be made.
    """
    import textarena
    from textarena.envs.registration import ENV_REGISTRY

    if name not in ENV_REGISTRY:  # hundreds: the nearest are named
        near = difflib.get_close_matches(name, ENV_REGISTRY, n=3, cutoff=0.3)
        raise QreditError(f"unknown game of textarena '{name}'; near are: {', '.join(near) or 'none'}")
    try:
        wrap(textarena.make(name)).reset({"prompt": ""}, 0)
    except Exception as error:  # also asserts, as of the number of players
        reason = to_one_line(summarize_error(error))
        raise QreditError(f"textarena:{name} is no game for one player: {reason}") from None
    return lambda: wrap(textarena.make(name))


adapter = Adapter("textarena", find, ("textarena", "Env"), wrap)
