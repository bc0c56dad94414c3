"""Every registered objective and stage obeys the laws that apply to it, and every law has caught a mutant."""

import contextlib
import re

import pytest

from qredit.core.chain import Credit, named_stages
from qredit.objectives import REGISTRY
from qredit.objectives.parsing import PENALTIES, SURROGATES
from qredit.objectives.parsing import STAGES as REGISTERED
from qredit.testing.laws import LAWS, STAGE_LAWS
from tests.support import typecheck
from tests.support.battery import BATTERY, STAGES
from tests.support.mutants import MUTANTS, STAGE_MUTANTS

CASES = [(law, subject) for subject in BATTERY for law in LAWS if law.applies(subject)]
STAGE_CASES = [(law, subject) for subject in STAGES for law in STAGE_LAWS if law.applies(subject)]
KILLS = [(law, mutant) for law in (*LAWS, *STAGE_LAWS) for mutant in {**MUTANTS, **STAGE_MUTANTS}[law.name]]
SHAPED = ("finite on degenerate groups", "stages are finite")
"""Laws under which shapes are checked at run time, for every subject; in all of them it takes a fifth of the time."""


@pytest.mark.slow
@pytest.mark.parametrize(("law", "subject"), [*CASES, *STAGE_CASES], ids=lambda value: str(value))
def test_the_law_holds(law, subject):
    with contextlib.nullcontext() if law.name in SHAPED else typecheck.unchecked():
        law.check(subject)


@pytest.mark.slow
@pytest.mark.parametrize(("law", "mutant"), KILLS, ids=lambda value: str(value))
def test_the_mutant_is_caught(law, mutant):
    with pytest.raises(AssertionError):
        law.check(mutant)


def test_every_law_has_a_mutant_and_a_subject():
    laws = [law.name for law in (*LAWS, *STAGE_LAWS)]
    assert len(set(laws)) == len(laws)
    assert {**MUTANTS, **STAGE_MUTANTS}.keys() == set(laws)
    assert all(MUTANTS.values())
    assert all(STAGE_MUTANTS.values())
    assert {law.name for law, _ in (*CASES, *STAGE_CASES)} == set(laws)
    assert set(SHAPED) <= set(laws)


def test_every_registered_objective_is_in_battery_with_a_target():
    targets = {}
    for subject in BATTERY:
        name = re.match(r"\w+", str(subject)).group()
        claims = (subject.advantage, subject.weights, subject.commitment, subject.plug_in)
        claims += (subject.reference, subject.loss, subject.target)
        targets[name] = targets.get(name, False) or any(claim is not None for claim in claims)
    assert {name: targets.get(name) for name in REGISTRY} == dict.fromkeys(REGISTRY, True)


def test_every_registered_stage_is_in_the_battery():
    credits = {name for name, make in REGISTERED.items() if issubclass(make, Credit)}
    listed = {type(leaf).__name__ for subject in STAGES for _, leaf in named_stages(subject.stage)}
    used = {type(leaf).__name__ for subject in BATTERY for _, leaf in named_stages(subject.objective.source)}
    assert credits <= listed
    assert REGISTERED.keys() - credits <= used


def test_every_registered_penalty_and_surrogate_is_in_battery():
    penalties = {type(penalty).__name__ for subject in BATTERY for penalty in subject.objective.penalties}
    assert penalties == PENALTIES.keys()
    assert {type(subject.objective.surrogate).__name__ for subject in BATTERY} == SURROGATES.keys()
