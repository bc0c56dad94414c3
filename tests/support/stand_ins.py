"""Stand-ins for packages of environments: as much of each as its adapter uses, where the package is not installed.

`make test-tools` runs the same tests with the real ones.
"""

import importlib.util
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest


def is_installed(package):
    return importlib.util.find_spec(package) is not None


def need(package):
    """Skip a test whose package is not installed; under `make test-tools` that is a failure."""
    if not is_installed(package):
        (pytest.fail if os.environ.get("QREDIT_TOOLS") else pytest.skip)(f"{package} is not installed")


def stand_in(package, monkeypatch):
    """Put the stand-in in the place of a package, unless it is installed. Under `make test-tools` it must be."""
    if os.environ.get("QREDIT_TOOLS"):
        need(package)
    if is_installed(package):
        return
    for name, contents in MADE[package]().items():
        module = ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)


def _textworld():
    class Game:
        plan = ("open chest", "take coin")

        def reset(self):
            self.done, self.last = [], "Welcome."
            return self.state

        @property
        def state(self):
            return SimpleNamespace(
                feedback=f"{self.last}\n\n>{' ' * 30}-= Cell =-{len(self.done)}/9",
                objective="Take the coin.",
                description="-= Cell =-\nThere is a chest.",
                facts=[f"did({one})" for one in self.done] or ["closed(chest)"],
                score=len(self.done),
                policy_commands=list(self.plan),
            )

        def step(self, command):
            if command in self.plan:
                self.done.append(command)
            if command == "close chest" and self.done:
                self.done.pop()
            self.last = f"You {command}."
            return self.state, len(self.done), len(self.done) == 2

        def close(self):
            pass

    return {"textworld": {"start": lambda path, infos: Game(), "EnvInfos": lambda **asked: asked}}


def _gymnasium():
    class Env:
        metadata: dict = {}  # noqa: RUF012  # that of the package
        render_mode = None
        unwrapped = property(lambda self: self)

        def close(self):
            pass

    class Discrete:
        def __init__(self, n):
            self.n, self.start = n, 0

    class Box:
        pass

    class FrozenLakeEnv(Env):
        metadata = {"render_modes": ["ansi"]}  # noqa: RUF012
        observation_space, action_space = Discrete(16), Discrete(4)

        def reset(self, seed=None):
            self.place = 0
            return 0, {}

        def step(self, action):
            self.place = (self.place + 4 * (action == 1)) % 16
            return self.place, 0.0, False, False, {}

        def render(self):
            return f"\x1b[41mS\x1b[0mFFF at {self.place}"

    class CartPoleEnv(FrozenLakeEnv):
        metadata = {"render_modes": ["human"]}  # noqa: RUF012
        observation_space = Box()

    ids = {"FrozenLake-v1": FrozenLakeEnv, "CartPole-v1": CartPoleEnv}

    def spec(name):
        if name not in ids:
            raise KeyError(f"Environment `{name.removesuffix('-v1')}` doesn't exist. Did you mean: `FrozenLake`?")
        return ids[name]

    def make(kind, render_mode=None):
        made = kind()
        made.render_mode = render_mode
        return made

    return {"gymnasium": {"Env": Env, "spec": spec, "make": make}}


def _textarena():
    class Env:
        pass

    class Guess(Env):
        def reset(self, num_players, seed=None):
            self.said, self.state = [(-1, "Guess from 1 to 20.", 1)], SimpleNamespace(error_count=0)
            self.state.made_invalid_move = False

        def get_observation(self):
            said, self.said = self.said, []
            return 0, said

        def step(self, action):
            right = "[" in action
            self.state.error_count = 0 if right else self.state.error_count + 1
            over = self.state.error_count > 1
            self.state.made_invalid_move = over
            said = "The target number is higher." if right else "You attempted an invalid move."
            self.said = [(0, action, 2), *([] if over else [(-1, said, 4)])]
            return over, {}

        def close(self):
            return {0: 0.25}, {0: {}}

    class Wrapper(Env):
        def __init__(self, env):
            self.env = env

    class TicTacToe(Guess):
        def reset(self, num_players, seed=None):
            raise AssertionError(f"The number of players has to be 2, received {num_players}")

    ids = {"GuessTheNumber-v0": Guess, "GuessTheNumber-v0-raw": Guess, "TicTacToe-v0": TicTacToe}
    return {
        "textarena": {"Env": Env, "make": lambda name: Wrapper(ids[name]())},
        "textarena.envs": {},
        "textarena.envs.registration": {"ENV_REGISTRY": ids},
    }


def _skyrl_gym():
    class Questions:
        def __init__(self, gold, turns):
            self.gold, self.turns, self.turn = gold, turns, 0

        def init(self, prompt):
            return prompt, {}

        def step(self, action):
            self.turn += 1
            done = self.turn == self.turns or action.endswith(self.gold)
            said = [] if done else [{"role": "user", "content": "Please write #### ANSWER."}]
            return {"observations": said, "reward": float(action.endswith(self.gold)), "done": done, "metadata": {}}

        def close(self):
            pass

    def make(name, env_config, extras):
        return Questions(extras["reward_spec"]["ground_truth"], extras["max_turns"])

    return {
        "skyrl_gym": {"make": make},
        "skyrl_gym.envs": {},
        "skyrl_gym.envs.registration": {"registry": {"gsm8k": None, "gsm8k_multi_turn": None}},
    }


def _openenv():
    class Model:
        model_fields: dict = {}  # noqa: RUF012  # pydantic's

        def __init_subclass__(cls):
            cls.model_fields = {**cls.model_fields, **cls.__annotations__}

        def __init__(self, **values):
            self.__dict__.update({"done": False, "reward": None, "metadata": {}, **values})

        @classmethod
        def model_validate(cls, values):
            return cls(**values)

        def model_dump(self, mode):
            return dict(vars(self))

    class Environment:
        def close(self):
            pass

    return {
        **{name: {} for name in ("openenv", "openenv.core", "openenv.core.env_server")},
        "openenv.core.env_server.interfaces": {"Environment": Environment},
        "openenv.core.env_server.types": {"Action": Model, "Observation": Model, "State": Model},
    }


def _aviary():
    class Environment:
        default_no_tool_calls_response = ([SimpleNamespace(content="No tool calls received.")], 0.0, False, False)

        async def close(self):
            pass

    class DummyEnv(Environment):
        async def reset(self):
            function = {"name": "print_story", "description": "Print a story.", "parameters": {"properties": {}}}
            info = SimpleNamespace(name="print_story", model_dump=lambda **how: function)
            return [SimpleNamespace(content="Write a story.")], [SimpleNamespace(info=info)]

        async def step(self, action):
            return [SimpleNamespace(content="null")], 1.0, True, False

    class ToolCall:
        from_name = staticmethod(lambda name, **arguments: (name, arguments))

    registry = {"dummy": ("aviary.core", "DummyEnv"), "hotpotqa": ("aviary.envs.hotpotqa", "HotPotQAEnv")}
    asked = {"ToolCall": ToolCall, "ToolRequestMessage": SimpleNamespace, "DummyEnv": DummyEnv}
    return {"aviary": {}, "aviary.core": asked, "aviary.env": {"Environment": Environment, "ENV_REGISTRY": registry}}


MADE = {
    "textworld": _textworld,
    "gymnasium": _gymnasium,
    "textarena": _textarena,
    "skyrl_gym": _skyrl_gym,
    "openenv": _openenv,
    "aviary": _aviary,
}
