"""Environments of other packages: the ids of their episodes, TextWorld's expert, and names that there are not.

Packages that are not installed have stand-ins, except where a test needs the real one; `make test-tools` has them all.
"""

import sys
from itertools import chain

import pytest
import torch

from qredit.environments.adapters import ADAPTERS
from qredit.environments.adapters._adapter import choose_seed
from qredit.environments.adapters.textworld import clean, find_game, is_refused, is_story, list_expert_commands
from qredit.environments.budget import EpisodeBudget
from qredit.environments.episode import EpisodePlayer, alike
from qredit.environments.names import check_names, find_environment
from qredit.environments.observation import ObservationFormat
from qredit.environments.protocol import Step
from qredit.environments.source import EpisodeSource
from qredit.rollouts.collate import collate
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import EndReason
from qredit.utils import extras
from qredit.utils.errors import QreditError
from qredit.utils.extras import EXTRAS
from tests.support import tiny
from tests.support.episodes import ScriptedSampler, token_format
from tests.support.stand_ins import is_installed, need, stand_in

PACKAGES = {name: EXTRAS[name][0] for name in ADAPTERS}
OPENENV = """
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Say(Action):
    message: str


class Heard(Observation):
    text: str


class Echo(Environment):
    def reset(self, seed=None, episode_id=None, **kwargs):
        self.turn = 0
        return Heard(text="Say something.")

    def step(self, action: Say, timeout_s=None, **kwargs) -> Heard:
        self.turn += 1
        return Heard(text=f"you said {action.message}", reward=float(self.turn), done=action.message == "stop")

    @property
    def state(self):
        return State()


class Untyped(Echo):
    def step(self, action, timeout_s=None, **kwargs):
        return Heard(text="")
"""
CALL = '<tool_call>{{"name": "{}", "arguments": {{"story": "Once."}}}}</tool_call>'
# (name, what is said in turn, whether that ends it, and the least that it earns)
EPISODES = {
    "textworld": ("textworld:{folder}/game.z8", ["look", "save", "EXPERT"], True, 2),
    "gymnasium": ("gymnasium:FrozenLake-v1", ["1", "go down: 1", "north", "2"], False, 0),
    "textarena": ("textarena:GuessTheNumber-v0", ["[5]", "none", "[6]", "none", "none"], True, 0.01),
    "skyrl-gym": ("skyrl-gym:gsm8k_multi_turn", ["#### 4", "#### 3"], True, 1),
    "openenv": ("openenv:open_game:Echo", ["hello", "stop"], True, 3),
    "aviary": ("aviary:dummy", ["hello", CALL.format("tell"), CALL.format("print_story")], True, 1),
}
ROW = {"prompt": "Play.", "answer": "3", "seed": 3, "max_turns": 3}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A game of two points; without TextWorld, a file that says that it is one."""
    path = tmp_path_factory.mktemp("games") / "game.z8"
    if not is_installed("textworld"):
        path.write_bytes(bytes([8, *[0] * 63]))
        return path
    import textworld

    chosen = textworld.GameOptions()
    chosen.seeds, chosen.nb_rooms, chosen.nb_objects, chosen.path = 7, 3, 4, str(path)
    chosen.nb_parallel_quests, chosen.quest_length = 2, 2
    textworld.make(chosen)
    return path


@pytest.fixture
def games(tmp_path, monkeypatch, compiled):
    """A working folder with a game and a module, and all packages."""
    for package in PACKAGES.values():
        stand_in(package, monkeypatch)
    (tmp_path / "open_game.py").write_text(OPENENV)
    monkeypatch.chdir(tmp_path)
    yield compiled.parent
    sys.modules.pop("open_game", None)


def get_episode(name, folder):
    """What makes environments, and what is said."""
    asked, actions, *_ = EPISODES[name]
    make = EpisodeSource.of(None, find_environment(asked.format(folder=folder))).make
    if "EXPERT" in actions:
        actions = [*actions[:-1], *list_expert_commands(str(folder / "game.z8"))]
    return make, actions


def test_every_adapter_is_tried():
    assert EPISODES.keys() == ADAPTERS.keys() <= EXTRAS.keys()


@pytest.mark.parametrize("name", ADAPTERS)
def test_ids_are_prompt_sampled_and_observed(name, games):
    make, actions = get_episode(name, games)
    tokens = token_format(tiny.tokenizer())
    observations = ObservationFormat(tokens, chat=False)
    turn = TokenBudget(40, 200)
    budget = EpisodeBudget(turn, len(actions), observation=2000)
    asked = chain(*(("go</think>", f"{action}<end>") for action in actions))
    sampler = ScriptedSampler(tokens.tokenizer, lambda text, number: next(asked))
    play = EpisodePlayer(alike(make), tokens, budget, observations)
    (found,) = play.play(sampler, [tokens.prompt_ids("Play.")], [ROW], stop_tokens=[1], seed=9)

    def encode(text):
        return tokens.tokenizer(text, add_special_tokens=False)["input_ids"]

    alone = make()
    step = alone.reset(ROW, 4)
    first = observations.neutralize(step.observation)
    assert found.prompt == tuple(tokens.prompt_ids(f"Play.\n\n{first}" if first else "Play."))
    ids, seen, keys, rewards = list(found.prompt), [], [], []
    for place, action in enumerate(actions):
        keys.append(step.state_key)
        step = alone.step(action)
        rewards.append(step.reward)
        ids += [*encode("go</think>"), *encode(action + "<end>")]
        if place + 1 < len(actions):
            assert not step.done
            seen.append(list(observations.encode(step.observation, 2000, ended=True).ids))
            ids += seen[-1]
    alone.close()
    ended, least = EPISODES[name][2:]
    assert step.done is ended
    assert found.episode_reward >= least
    assert [*found.prompt, *found.ids] == ids
    assert sampler.calls[-1][0] == tuple(ids[: len(ids) - len(encode(actions[-1] + "<end>"))])
    assert found.end is (EndReason.ANSWER if step.done else EndReason.BUDGET)
    assert [turn.state_key for turn in found.turns] == keys
    assert [None if turn.reward != turn.reward else turn.reward for turn in found.turns] == rewards
    batch = collate([found], ("response",), 0, 0, torch.device("cpu")).batch
    assert batch.ids[0][batch.observation[0]].tolist() == list(chain(*seen))
    assert not (batch.trainable & batch.observation).any()
    assert len(seen) == len(actions) - 1 >= 1


def test_the_expert_wins_and_scores_sum_to_the_last(games):
    make, actions = get_episode("textworld", games)
    game = make()
    game.reset(ROW, 0)
    rewards, keys = [], []
    for action in actions:
        step = game.step(action)
        rewards.append(step.reward)
        keys.append(step.state_key)
    assert step.done
    assert game.game.state.score == sum(rewards) == 2
    assert len(keys) == len(actions) > len(set(keys)), "looking changes nothing"
    game.close()


def test_a_real_game_has_anchors(compiled):
    need("textworld")
    game = find_environment(f"textworld:{compiled}")()
    keys = [game.reset(ROW, 0).state_key]
    keys += [game.step(said).state_key for said in ("close refrigerator", "open refrigerator", "close refrigerator")]
    game.close()
    assert keys[0] == keys[2] != keys[1] == keys[3]


def test_the_seed_of_a_row_chooses_the_game():
    assert choose_seed({"seed": 3}) == 3
    assert choose_seed({"prompt": "a", "id": 1}) == choose_seed({"prompt": "a"}) != choose_seed({"prompt": "b"})
    for bad in (-1, 1.5, True, "3"):
        with pytest.raises(QreditError, match="the column seed holds whole numbers from 0 up, got"):
            choose_seed({"seed": bad})


def test_the_last_move_of_a_game_has_its_reward(games):
    game = find_environment("textarena:GuessTheNumber-v0")()
    game.reset(ROW, 0)
    steps = [game.step(said) for said in ("[5]", "none", "[6]", "none", "none")]
    assert [step.reward for step in steps[:-1]] == [None] * 4
    assert steps[0].observation == "The target number is higher.", "the move itself is not said again"
    assert steps[-1].done
    assert 0 <= steps[-1].reward < 1
    assert [dict(step.info) for step in steps[1:4]] == [{"invalid_moves": 1}, {}, {"invalid_moves": 1}]


def test_a_class_of_the_package_is_played_as_it_is(games):
    import gymnasium

    class Words(gymnasium.Env):
        def reset(self, seed=None, options=None):
            return f"seed {seed}", {"state_key": "begin"}

        def step(self, action):
            return f"heard {action}", 1, action == "stop", action == "late", {}

    for given in (Words, lambda: Words()):
        made = EpisodeSource.of(None, given).make()
        assert made.reset(ROW, 5) == Step("seed 3", state_key="begin")
        assert made.step("go") == Step("heard go", reward=1.0)
        assert made.step("stop").done
        assert made.step("late").truncated
    import open_game

    assert EpisodeSource.of(None, open_game.Echo).make().reset(ROW, 0) == Step("Say something.")


def test_what_stands_behind_a_color_is_marked(games):
    game = find_environment("gymnasium:FrozenLake-v1")()
    said = game.reset(ROW, 0)
    assert said.observation.startswith("[S]FFF")
    assert said.observation.endswith("Actions: numbers from 0 to 3.")
    assert said.state_key == "0"
    assert game.step("4").info == {"unknown_actions": 1}
    game.close()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("textworld:{folder}/gane.z8", "unknown game in .* 'gane.z8'; did you mean 'game.z8'"),
        ("textworld:nowhere/game.z8", "there is no game nowhere/game.z8, and no other one in nowhere"),
        ("textworld:open_game.py", "there is no|is no compiled game"),
        ("gymnasium:FrozenLak-v1", "Did you mean: `FrozenLake`"),
        ("gymnasium:CartPole-v1", "CartPoleEnv observes .*, no text, and is not made with render_mode='ansi'"),
        ("textarena:GuessTheNumbr-v0", "unknown game of textarena 'GuessTheNumbr-v0'; near are: GuessTheNumber-v0"),
        ("textarena:TicTacToe-v0", "no game for one player: The number of players has to be 2"),
        ("skyrl-gym:gsm9k", "unknown environment of skyrl-gym 'gsm9k'; did you mean 'gsm8k'"),
        ("openenv:open_game:Ecko", "cannot import 'open_game:Ecko'"),
        ("openenv:open_game:Untyped", "Untyped: its step\\(action\\) needs the type of its own actions"),
        ("openenv:json:JSONDecoder", "makes a JSONDecoder, no environment of OpenEnv"),
        ("aviary:dumy", "unknown environment of aviary 'dumy'; did you mean 'dummy'"),
        ("aviary:hotpotqa", "aviary:hotpotqa needs a package of its own"),
        ("textword", "unknown environment 'textword'; did you mean 'textworld:NAME'"),
    ],
)
def test_names_that_there_are_not_are_refused_in_a_line(asked, message, games):
    with pytest.raises(QreditError, match=message) as found:
        find_environment(asked.format(folder=games))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_package_that_is_missing_is_named_with_its_extra(name, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    asked = EPISODES[name][0]
    check_names(asked, None, "jsonl")
    with pytest.raises(QreditError, match=f"needs .*, not installed here; .*'qredit\\[{name}\\]'"):
        find_environment(asked)


def test_a_file_is_a_story_by_its_header(tmp_path):
    body = bytes(range(64))
    head = bytearray(64)
    head[0], head[26:28], head[28:30] = 8, (16).to_bytes(2, "big"), sum(body).to_bytes(2, "big")
    story = bytes(head) + body
    assert is_story(story + b"padding")
    assert not is_story(story[:-1]), "cut off"
    assert not is_story(story[:-1] + b"x"), "changed"
    assert not is_story(bytes([9]) + story[1:])
    assert not is_story(b"hello")
    (tmp_path / "a.z8").write_bytes(b"hello")
    (tmp_path / "a.json").write_bytes(story)
    for name in ("a.z8", "a.json"):
        with pytest.raises(QreditError, match=f"{name} is no compiled game"):
            find_game(str(tmp_path / name))
    with pytest.raises(QreditError, match="no game is named"):
        find_environment_of_rows().reset({"prompt": "x"}, 0)


def find_environment_of_rows():
    return ADAPTERS["textworld"].find("")()


def test_commands_that_leave_the_game_are_not_passed_on():
    for said in ("save", "SAVE game", "look. restore", "transcripts", "unscript", "take key then quit", "replay"):
        assert is_refused(said), said
    for said in ("\\help", "go east\\x"):  # Frotz's own begin with a backslash
        assert is_refused(said), said
    for said in ("look", "open safe", "inventory"):
        assert not is_refused(said), said
    assert clean("You look.\n\n>          -= Cell =-0/2") == "You look."
    assert clean("Sure?           -= Cell =-0/3") == "Sure?"


def test_what_is_made_to_be_looked_at_is_closed():
    open_now = []

    class Held:
        def __init__(self):
            open_now.append(self)

        def reset(self, example, seed):
            return Step()

        def step(self, action):
            return Step(done=True)

        def close(self):
            open_now.remove(self)

    assert EpisodeSource.of(None, lambda: Held()).make is not None
    assert open_now == []
