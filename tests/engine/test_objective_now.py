"""Which objective a step learns by: the one given, or what the last part that steers asks for."""

from types import SimpleNamespace

import pytest

from qredit.engine.current_objective import CurrentObjective
from qredit.objectives.parsing import parse


def asking(text):
    return SimpleNamespace(now=lambda: None if text is None else parse(text))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([], "garl(q=0.5)"),
        ([None], "garl(q=0.5)"),
        (["garl(q=0.25)"], "garl(q=0.25)"),
        (["garl(q=0.25)", None], "garl(q=0.25)"),
        (["garl(q=0.25)", "paft(q=0.75)"], "paft(q=0.75)"),
    ],
)
def test_the_last_part_that_asks_has_its_way(asked, expected):
    found = CurrentObjective(parse("garl(q=linear(1.0, 0.0))"), [asking(text) for text in asked]).at(0.5)
    assert found == parse(expected)


def test_schedules_of_what_is_asked_for_are_read_off_too():
    found = CurrentObjective(parse("garl(q=1.0)"), [asking("garl(q=linear(1.0, 0.0))")]).at(0.75)
    assert found == parse("garl(q=0.25)")
