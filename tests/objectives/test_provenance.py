"""Where a method's formula was read and the official code it was compared with stand first wherever it is shown."""

import re

import pytest

from qredit.catalog import about
from qredit.cli.main import main
from qredit.cli.objectives_command import describe_provenance
from qredit.objectives import REGISTRY
from qredit.objectives._official import OFFICIAL
from tests.support.paths import ROOT

PAGES = ROOT / "docs" / "objectives"


@pytest.mark.parametrize("name", REGISTRY)
def test_a_page_says_first_where_its_formula_and_code_are_from(name):
    """Repository, file and commit or release; or that it is not recorded; or that it was not compared."""
    method, page = REGISTRY[name], (PAGES / f"{name}.md").read_text()
    told = describe_provenance(about(name, method))
    assert told in page.partition("```")[0].partition("\n## ")[0], "run make pages-text"
    if method.official is None:
        assert "Not compared with official code." in told
    else:
        assert re.search(r"^[\w-]+/[\w.-]+ \S+@[0-9a-f]{7}|release \d|not recorded", method.official)
    if method.certainty == "notes":
        assert told.startswith("Second-hand")
        assert "> **Second-hand" in page


def test_no_official_code_is_named_of_method_that_is_not_there():
    assert OFFICIAL.keys() <= REGISTRY.keys()


def test_second_hand_methods_are_marked_in_every_list(capsys):
    second_hand = {name for name, method in REGISTRY.items() if method.known == "second-hand"}
    assert {"hicra", "pear", "tp_grpo"} <= second_hand
    assert not {"grpo", "canon", "garl", "thr"} & second_hand
    index = (PAGES / "README.md").read_text()
    for name, method in REGISTRY.items():
        shown = "**second-hand**" if name in second_hand else method.known
        assert f"| [{name}]({name}.md) | {shown} |" in index
    main(["objectives"])
    listed = capsys.readouterr().out
    assert "second-hand" in listed
    assert "known from" in listed
    main(["objectives", "hicra"])
    head = " ".join(capsys.readouterr().out.split("\n\n")[1].split())
    assert head.startswith("Second-hand: known from others' notes")
