"""The small state of a run within a checkpoint: a list of Stateful parts in one JSON file, each under fixed keys."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qredit.utils.stateful import Stateful

STATE_FILE = "qredit_state.json"
POSITION, STAGES, METRICS, GUIDE, GUARD, PROMPTS = "position", "stages", "metrics", "guide", "guard", "prompts"
FLAT_KEYS: Mapping[str, tuple[str, ...]] = {
    POSITION: ("step", "evaluated"),
    STAGES: ("objective_state", "pending_statistics"),
}
"""Parts whose own keys stand in the file, as they always did; of every other part it is the name that stands there."""
FORMER_KEYS: Mapping[str, str] = {"Guide": GUIDE, "Guard": GUARD}
"""Keys that files of former versions hold, and what they are called now."""


@dataclass(frozen=True)
class StatefulPart:
    """A Stateful made of two functions, for what is no object of its own."""

    name: str
    state_dict: Callable[[], dict[str, Any]]
    load_state_dict: Callable[[Mapping[str, Any]], None]


def collect_state(parts: Sequence[Stateful]) -> dict[str, Any]:
    """The states of all parts under their keys, as the file holds them."""
    state: dict[str, Any] = {}
    for part in parts:
        state |= part.state_dict() if part.name in FLAT_KEYS else {part.name: part.state_dict()}
    return state


def restore_parts(parts: Sequence[Stateful], state: Mapping[str, Any]) -> list[str]:
    """Let every part go on from its state; the names of those that it does not hold, which begin anew."""
    anew = []
    for part in parts:
        if part.name in FLAT_KEYS:
            part.load_state_dict({key: state[key] for key in FLAT_KEYS[part.name]})
        elif part.name in state:
            part.load_state_dict(state[part.name])
        else:
            anew.append(part.name)
    return anew


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state into a checkpoint."""
    (folder / STATE_FILE).write_text(json.dumps(state, indent=1))


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state written by `save_state`, former keys under today's; None when the checkpoint is not ours."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    return {FORMER_KEYS.get(key, key): value for key, value in json.loads(path.read_text()).items()}
