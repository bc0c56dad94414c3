"""What make runs of the tests: every test has one target, and CI calls those that take no more than minutes."""

import itertools
import re

import pytest

from tests.support.paths import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
SPLIT = ("check", "test-e2e", "test-long")
"""The targets that divide the tests of this environment among themselves, by marker."""


def recipe(target: str) -> str:
    """The commands of a target."""
    (found,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return found


def selects(target: str, markers: tuple[str, ...]) -> bool:
    """Whether the `-m` of a target's pytest takes a test that has these markers."""
    (quoted, bare) = re.search(r'-m (?:"(.+?)"|(\w+))$', recipe(target), re.MULTILINE).groups()
    return eval(quoted or bare, {name: name in markers for name in ("e2e", "long")})


SETS = [some for n in range(3) for some in itertools.combinations(("e2e", "long"), n)]


@pytest.mark.parametrize("markers", SETS, ids=str)
def test_every_test_is_run_by_one_target(markers):
    assert sum(selects(target, markers) for target in SPLIT) == 1


def test_whole_runs_are_apart_from_the_others():
    assert (selects("check", ()), selects("test-e2e", ("e2e",)), selects("test-long", ("long",))) == (True,) * 3


@pytest.mark.parametrize("file", [".ci/run", ".github/workflows/tests.yml"])
def test_ci_runs_both_halves(file):
    called = set(re.findall(r"make ([\w-]+)", (ROOT / file).read_text()))
    assert {"test", "test-e2e", "test-wheel"} <= called
    (needed,) = re.findall(r"^test: (.*)$", MAKEFILE, re.MULTILINE)
    assert {"lint", "check"} <= set(needed.split())
