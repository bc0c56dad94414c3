"""docs/methods.md: the whole field on one page, of the registry of objectives and a table of the rest. `make methods`.

Seconds; nothing is measured. What was measured of an objective is read off its page.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from methods_table import NOT_MEASURED, SLOTS, SURROGATES, SYSTEMS, Slot, System
from page import NONE_SEEN
from part_effects import tell_part_effects

from qredit.catalog import Row, catalog

PAGE, PAGES = Path("docs/methods.md"), Path("docs/objectives")
TEXT = Path(__file__).with_name("methods_page.md.in")
FAMILY_SLOTS: Mapping[str, Slot] = {
    "likelihood": "likelihood",
    "reward": "reward",
    "group": "group credit",
    "token": "token credit",
    "step": "turn credit",
    "penalty": "penalty",
}
HEAD = "| system | what it does | source | known from | official code | measured |\n|---|---|---|---|---|---|\n"
NO_SECTION = "[results](results.md)"  # of pages written by hand, whose numbers are all over the results


@dataclass(frozen=True)
class Line:
    """A row of the page; each text is Markdown."""

    slot: Slot
    name: str
    what: str
    source: str
    known: str
    official: str
    effect: str

    def __str__(self) -> str:
        known = f"**{self.known}**" if self.known == "second-hand" else self.known
        cells = (self.name, self.what, link_source(self.source), known, self.official, self.effect)
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def link_source(source: str) -> str:
    """A source with its arXiv id as a link."""
    return re.sub(r"arXiv (\S+)", r"[\1](https://arxiv.org/abs/\1)", source)


def find_repositories(official: str | None) -> str:
    """The repositories that a record of official code names: `owner/name path@commit and owner/name …`."""
    if official is None:
        return "none found"
    return ", ".join(re.findall(r"(?:^|and )([\w-]+/[\w.-]+)", official)) or "compared, not recorded"


def read_effects(name: str) -> dict[str, str] | None:
    """What the page of an objective says of its effect, by comparison; None where it has no such section."""
    path = PAGES / f"{name}.md"
    _, found, text = (path.read_text() if path.exists() else "").partition("## Effect\n\n")
    lines = text.splitlines()
    return dict(line.removeprefix("- ").split(": ", 1) for line in lines if line.startswith("- ")) if found else None


def shorten_effect(kind: str, text: str) -> str:
    """One effect as a few words: success beside GRPO's, or the distance to it.

    Args:
        kind: which comparison it is of.
        text: what the objective's page says.
    """
    beside = re.match(r"p@1 ([\d.]+) .*?GRPO: p@1 ([\d.]+) ", text)
    if beside:
        return f"{kind} {beside[1]} (GRPO {beside[2]})"
    points = re.search(r"[-+][\d.]+(?: \[[^\]]*\])? points", text)
    told = points[0] if points else text.split(" (")[0]
    return f"{kind}: none seen ({told})" if NONE_SEEN in text else f"{kind}: {told}"


def tell_effect(name: str) -> str:
    """What was measured of an objective, in one line."""
    effects = read_effects(name)
    if effects is None:
        return NO_SECTION
    if effects:
        return "; ".join(shorten_effect(kind, text) for kind, text in effects.items())
    return NO_SECTION if "results.md" in (PAGES / f"{name}.md").read_text().partition("## Effect")[2] else NOT_MEASURED


def describe_objective(row: Row) -> Line:
    """The row of a registered objective."""
    name = row["name"]
    return Line(
        "surrogate" if name in SURROGATES else FAMILY_SLOTS[row["family"]],
        f"[`{name}`](objectives/{name}.md)",
        row["summary"].rstrip("."),
        row["source"],
        row["known"],
        find_repositories(row["official"]),
        tell_effect(name),
    )


def describe_system(system: System, measured: Mapping[str, str]) -> Line:
    """The row of a system of the table.

    Args:
        system: of the table.
        measured: what results say of systems, by name; the table's own word goes first.
    """
    target = system.page or f"#{slugify(system.name)}"
    return Line(
        system.slot,
        f"[{system.name}]({target})",
        system.what,
        system.source,
        system.known,
        system.official or "none found",
        tell_system_effect(system, measured) if system.page else "no part here",
    )


def tell_system_effect(system: System, measured: Mapping[str, str]) -> str:
    """What was measured of a part, in one line."""
    return system.effect if system.effect != NOT_MEASURED else measured.get(system.name, NOT_MEASURED)


def slugify(heading: str) -> str:
    """The anchor of a heading, as the docs build makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def page() -> str:
    """The text of docs/methods.md."""
    measured = tell_part_effects()
    lines = [*map(describe_objective, catalog()["objectives"]), *(describe_system(one, measured) for one in SYSTEMS)]
    tables = []
    for slot in SLOTS:
        own = sorted((line for line in lines if line.slot == slot), key=lambda line: line.name.lower())
        tables.append(f"\n## {slot.capitalize()}\n\n{HEAD}" + "".join(f"{line}\n" for line in own))
    missing = [system for system in SYSTEMS if system.missing]
    reasons = "\n".join(f"### {system.name}\n\n{system.missing}\n" for system in missing).rstrip()
    return Template(TEXT.read_text()).substitute(
        count=len(lines), missing=len(missing), tables="".join(tables), reasons=reasons
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
