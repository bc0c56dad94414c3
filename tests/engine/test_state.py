"""The small state of a run: a list of Stateful parts, each under fixed keys."""

import json

import pytest

from qredit.engine.run_state import (
    FLAT_KEYS,
    GUARD,
    GUIDE,
    METRICS,
    POSITION,
    STATE_FILE,
    StatefulPart,
    collect_state,
    load_state,
    restore_parts,
)

STATES = {
    POSITION: {"step": 3, "evaluated": [2, 0]},
    "stages": {"objective_state": {"0": {"mean": 0.5}}, "pending_statistics": {}},
    METRICS: {"reward": [1.0]},
    GUARD: {"ended": False},
}


def parts(states, given=None):
    """A part for each state, which notes what it is given."""
    given = {} if given is None else given
    return [
        StatefulPart(name, lambda s=state: s, lambda s, n=name: given.update({n: s})) for name, state in states.items()
    ]


def test_keys_of_the_file_are_those_that_former_versions_read():
    found = collect_state(parts(STATES))
    assert list(found) == ["step", "evaluated", "objective_state", "pending_statistics", "metrics", "guard"]
    assert (found["step"], found["guard"]) == (3, {"ended": False})


def test_every_part_is_given_its_own_state_again():
    given = {}
    restore_parts(parts(STATES, given), collect_state(parts(STATES)) | {"objective": "grpo()"})
    assert given == STATES


def test_a_part_that_the_file_does_not_know_begins_anew():
    given = {}
    restore_parts(parts(STATES | {GUIDE: {}}, given), collect_state(parts(STATES)))
    assert GUIDE not in given


def test_a_file_without_a_position_is_refused():
    with pytest.raises(KeyError, match="evaluated"):
        restore_parts(parts(STATES), {"step": 3})


@pytest.mark.parametrize("name", FLAT_KEYS)
def test_parts_that_lie_flat_hold_the_keys_that_are_read_back(name):
    assert tuple(STATES[name]) == FLAT_KEYS[name]


def test_keys_of_former_versions_are_read_under_todays(tmp_path):
    (tmp_path / STATE_FILE).write_text(json.dumps({"step": 3, "Guide": {"q": 0.5}, "Guard": {}}))
    assert load_state(tmp_path) == {"step": 3, GUIDE: {"q": 0.5}, GUARD: {}}
    assert load_state(tmp_path / "elsewhere") is None
