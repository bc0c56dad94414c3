"""What docs/api/index.md calls public is as committed: a name that goes, or a signature that changes, is seen."""

from tests.support.paths import ROOT
from tests.support.public_api import FILE, PACKAGES, lines, public_objects

PAGE = ROOT / "docs" / "api" / "index.md"


def test_public_names_and_signatures_are_as_committed():
    """Where the change is meant: run `make api`, and say in CHANGELOG.md what users have to do."""
    committed = FILE.read_text(encoding="utf-8").splitlines()
    gone, new = sorted(set(committed) - set(lines())), sorted(set(lines()) - set(committed))
    assert (gone, new) == ([], []), f"run `make api`: gone {gone}, new {new}"


def test_the_listing_holds_what_users_import_first():
    assert {"qredit.chain", "qredit.objectives.garl", "qredit.trl.QreditTrainer"} <= set(public_objects())
    assert len(lines()) > 250


def test_the_page_names_every_public_package():
    page = PAGE.read_text(encoding="utf-8")
    assert [package for package in PACKAGES if f"`{package}`" not in page] == []
