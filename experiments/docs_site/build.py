"""Build the site of docs/ into site/, and refuse whatever is wrong with it: `make docs`. Half a minute.

Zensical reports links to pages, headings and names that are not there. Two things that it lets pass are refused here:
what the reader of docstrings complains of, and links or pictures of the finished pages that lead nowhere.
"""

import html.parser
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
COMPLAINTS = ("griffe:", "mkdocstrings:")


class Page(html.parser.HTMLParser):
    """What a finished page refers to, and the places on it that can be referred to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is not None and name in ("href", "src"):
                self.targets.add(value)
            elif value is not None and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)


def dead_links(site: Path) -> list[str]:
    """Each reference of a page to a file of the site, or to a place in it, that is not there; as "page: target"."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or path.name == "404.html":  # that page's links begin at the site's root
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            place = unquote(parts.fragment)
            if not file.exists() or (place and file in pages and place not in pages[file].anchors):
                found.append(f"{path.relative_to(site)}: {target}")
    return found


def main() -> int:
    """The exit status: 0 where nothing was complained of."""
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--clean", "--strict"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = re.sub(r"\x1b\[[0-9;]*m", "", built.stdout)  # its colours, which a log would hold letter by letter
    complaints = [line for line in said.splitlines() if line.startswith(COMPLAINTS)]
    if built.returncode or complaints:
        sys.stderr.write(said if built.returncode else "\n".join(complaints) + "\n")
        return 1
    dead = dead_links(SITE)
    sys.stderr.write("".join(f"leads nowhere: {link}\n" for link in dead))
    sys.stdout.write(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.name}/\n")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
