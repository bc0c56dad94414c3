"""SkyRL-Gym's environments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from qredit.environments.adapters._adapter import Adapter
from qredit.environments.protocol import EnvironmentFactory, Step
from qredit.utils.errors import QreditError, unknown_name_error


@dataclass
class SkyRLGame:
    """One environment of SkyRL-Gym, with the row as its extras. The reference answer stands where it looks for it.

    Attributes:
        name: its id.
        config: its `env_config`.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """Nothing is said before the question.

        Raises:
            QreditError: an environment that asks the question in other words.
        """
        import skyrl_gym

        gold = {"method": "rule", "ground_truth": example.get("answer")}
        self.game = skyrl_gym.make(self.name, env_config=self.config, extras={"reward_spec": gold, **example})
        prompt = example["prompt"]
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(one) for one in prompt]
        begun, _ = self.game.init(asked)
        if begun != asked:
            raise QreditError(f"skyrl-gym:{self.name} rewrites the prompt; write it so in the data")
        return Step()

    def step(self, action: str) -> Step:
        """What it says to an action, as chat messages."""
        found = self.game.step(action)
        return Step(
            [dict(one) for one in found["observations"]], reward=float(found["reward"]), done=bool(found["done"])
        )

    def close(self) -> None:
        """Close it."""
        self.game.close()


def find(name: str) -> EnvironmentFactory:
    """What makes the environment of an id.

    Raises:
        QreditError: no such id, with the nearest.
    """
    from skyrl_gym.envs.registration import registry

    if name not in registry:
        raise unknown_name_error("environment of skyrl-gym", name, registry)
    return partial(SkyRLGame, name)


adapter = Adapter("skyrl-gym", find)
