"""TextWorld's games: compiled stories, their score and their states."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qredit.environments.adapters._adapter import Adapter
from qredit.environments.protocol import EnvironmentFactory, Step
from qredit.utils.errors import QreditError, unknown_name_error
from qredit.utils.sanitize import to_one_line

COLUMN = "game"
_SUFFIX = re.compile(r"\.z[1-8]")
_PROMPT = re.compile(r"\n>[^\n]*\Z|[ ]{8,}-= [^\n]*\Z")
_MOST_COMMAND = 200
_ESCAPE = "\\"
_LETTERS = 9  # of a word, all that a story reads
_OUTSIDE = ("save", "restore", "restart", "quit", "script", "transcript", "recording", "replay")
_REFUSED = frozenset(word[:_LETTERS] for word in _OUTSIDE)


@dataclass
class TextWorldGame:
    """One game. An action is a command, such as `open fridge`.

    The reward of a turn is the difference that it makes to the score, so that the rewards of an episode sum to the
    final score. Two states are equal where the same facts hold. Commands that read or write files, begin anew, or are
    for the interpreter itself, are not passed on; `Step.info` counts them as refused_commands.

    Attributes:
        path: of the compiled game; None reads it in the row's column `game`.
    """

    path: str | None = None

    def reset(self, example: Mapping[str, Any], seed: int) -> Step:
        """The objective and what is seen first.

        Raises:
            QreditError: no file, or one that is no game.
        """
        file = find_game(self.path or example.get(COLUMN))
        import textworld  # here: an extra

        asked = textworld.EnvInfos(
            feedback=True, objective=True, description=True, facts=True, score=True, won=True, lost=True
        )
        self.game = textworld.start(str(file), asked)
        state = self.game.reset()
        self.score = state.score or 0
        told = [text.strip() for text in (state.objective, state.description) if text]
        return Step("\n\n".join(told) or clean(state.feedback), state_key=make_key(state))

    def step(self, action: str) -> Step:
        """What the story says to a command."""
        command = to_one_line(action.strip())[:_MOST_COMMAND]
        if is_refused(command):
            return Step(
                "This command is not allowed here.",
                reward=0.0,
                state_key=make_key(self.game.state),
                info={"refused_commands": 1},
            )
        state, score, done = self.game.step(command)
        earned, self.score = (score or 0) - self.score, score or 0
        return Step(clean(state.feedback), reward=float(earned), done=bool(done), state_key=make_key(state))

    def close(self) -> None:
        """End the interpreter."""
        self.game.close()


def list_expert_commands(path: str) -> tuple[str, ...]:
    """The commands that win a game that TextWorld made, in their order.

    Raises:
        QreditError: no file, no game, or one of other makers, of which no such commands are known.
    """
    import textworld

    game = textworld.start(str(find_game(path)), textworld.EnvInfos(policy_commands=True))
    try:
        found = game.reset().policy_commands
    finally:
        game.close()
    if not found:
        raise QreditError(f"no commands are known that win {path}; games that tw-make compiled have some")
    return tuple(found)


def find_game(path: str | None) -> Path:
    """The file of a game.

    Raises:
        QreditError: there is none, or it is no game: the interpreter would end the process.
    """
    if not path:
        raise QreditError(f"no game is named: write textworld:GAME.z8, or give the rows a column {COLUMN}")
    file = Path(path)
    if not file.is_file():
        there = [one.name for one in file.parent.iterdir()] if file.parent.is_dir() else []
        games = [name for name in there if _SUFFIX.fullmatch(Path(name).suffix)]
        if not games:
            raise QreditError(f"there is no game {path}, and no other one in {file.parent}; tw-make compiles games")
        raise unknown_name_error(f"game in {file.parent}", file.name, games)
    if not _SUFFIX.fullmatch(file.suffix) or not is_story(file.read_bytes()):
        raise QreditError(f"{path} is no compiled game (.z1 to .z8); tw-make --output GAME.z8 makes one")
    return file


def is_story(data: bytes) -> bool:
    """Whether bytes are a whole story file, by version, length and check sum of its header.

    Where they stand: Z-Machine Standards Document 1.1, section 11. Old files hold no length, and the two other fields
    are then not compared.
    """
    if len(data) < 64 or not 1 <= data[0] <= 8:
        return False
    scale = 2 if data[0] <= 3 else 4 if data[0] <= 5 else 8
    length, total = int.from_bytes(data[26:28], "big") * scale, int.from_bytes(data[28:30], "big")
    return length == 0 or (length <= len(data) and sum(data[64:length]) % 65536 == total)


def is_refused(command: str) -> bool:
    """Whether a command would read or write files, or begin anew. Several can stand in one line.

    A backslash is refused, too: Frotz, which interprets the games, takes it for the beginning of a command of its own.
    """
    if _ESCAPE in command:
        return True
    words = re.findall(r"\w+", command.lower())
    return any(word[:_LETTERS].removeprefix("un").removeprefix("no") in _REFUSED for word in words)


def clean(feedback: str) -> str:
    """What a story says, without its prompt and the line with place and score."""
    return _PROMPT.sub("", feedback.rstrip()).strip()


def make_key(state: Any) -> str | None:
    """Names the facts that hold; None where they are not known."""
    facts = getattr(state, "facts", None)
    if not facts:
        return None
    return hashlib.sha256("\n".join(sorted(map(str, facts))).encode()).hexdigest()[:16]


def find(name: str) -> EnvironmentFactory:
    """What plays a game; without a name the rows name theirs."""
    return partial(TextWorldGame, str(find_game(name).resolve())) if name else TextWorldGame


adapter = Adapter("textworld", find)
