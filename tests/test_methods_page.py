"""docs/methods.md shows the whole field: every objective, rule and other system, with links that lead somewhere."""

import importlib
import re
from pathlib import Path

import methods_page
import pytest
from methods_table import SLOTS, SYSTEMS, System

from tests.support.paths import ROOT, SOURCE

ARXIV = re.compile(r"arXiv \d{2}(0[1-9]|1[0-2])\.\d{5}(v\d+)?")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def find_rules(folder):
    """ "OPTION NAME" of every registered rule: a folder of rules says in its first line which option they are for."""
    found = set()
    for path in sorted(folder.rglob("__init__.py")):
        told = re.search(r"^\"\"\"Rules [^\"]*for `[a-z ]*--([a-z-]+) RULE\(…\)`", path.read_text())
        if told:
            name = ".".join(("qredit", *path.parent.relative_to(SOURCE).parts))
            found |= {f"{told[1]} {rule}" for rule in importlib.import_module(name).REGISTRY}
    return found


def headings(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {methods_page.slugify(re.sub(r"[`*]", "", line)) for line in re.findall(r"^#+ (.*)", text, re.MULTILINE)}


def dead_links(text):
    """Links of a page of docs/ to files or headings that are not there."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, place = target.partition("#")
        path = Path("docs") / file if file else methods_page.PAGE
        if not target.startswith("https://") and (not path.exists() or (place and place not in headings(path))):
            found.append(target)
    return found


def test_the_methods_page_is_what_its_tables_say():
    assert methods_page.PAGE.read_text() == methods_page.page(), "run make methods"


def test_links_of_the_methods_page_lead_somewhere():
    assert dead_links(methods_page.page()) == []


def test_a_dead_link_would_be_seen():
    text = "[a](sft.md) [b](sft.md#metrics) [c](sft.md#nowhere) [d](nowhere.md) [e](#likelihood) [f](#nowhere)"
    assert dead_links(text) == ["sft.md#nowhere", "nowhere.md", "#nowhere"]


def test_sources_of_methods_are_well_formed():
    lines = [*map(methods_page.describe_objective, methods_page.catalog()["objectives"])]
    lines += (methods_page.describe_system(one, {}) for one in SYSTEMS)
    sources = [line.source for line in lines if not line.source.startswith("none")]
    assert len(sources) > 90
    assert [source for source in sources if not ARXIV.fullmatch(source)] == []


def test_every_system_has_one_row_and_a_slot():
    names = [system.name for system in SYSTEMS]
    assert len(set(names)) == len(names)
    assert {system.slot for system in SYSTEMS} <= set(SLOTS)


def test_every_registered_rule_has_a_row():
    rules = find_rules(SOURCE)
    assert {"branching trees", "branching candidates"} <= rules
    assert {system.rule for system in SYSTEMS if system.rule} == rules


@pytest.mark.parametrize("given", [{}, {"page": "sft.md", "missing": "it is not there"}])
def test_a_system_has_a_page_or_a_reason(given):
    with pytest.raises(ValueError, match=r"^X: either a page, or why there is none$"):
        System("X", "sampler", "it samples", "none", "own", **given)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("p@1 98.6 [97.9, 99.2] %, p@16 99 %. GRPO: p@1 99.5 [99.3, 99.7] %, p@16 100 %", "warm 98.6 (GRPO 99.5)"),
        (
            "p@1 85.9 %, -2.5 points from `grpo()` (one seed). None seen: seeds differ by as much.",
            "warm: none seen (-2.5 points)",
        ),
        ("p@1 90.0 %, +9.0 [+7.0, +11.0] points from `grpo()` (3 seeds).", "warm: +9.0 [+7.0, +11.0] points"),
    ],
)
def test_an_effect_is_told_in_a_few_words(text, told):
    assert methods_page.shorten_effect("warm", text) == told


def test_repositories_are_read_off_official_code():
    both = "a/b x/y.py, release 1, and its\nc/d/e.sh@123 and f/g h.py"
    assert methods_page.find_repositories(both.replace("\n", " ")) == "a/b, f/g"
    assert methods_page.find_repositories("compared, repository and commit not recorded") == "compared, not recorded"
    assert methods_page.find_repositories(None) == "none found"
