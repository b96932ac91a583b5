"""Look through built pages for what a reader would miss.

``python docs/_site/check_built.py build/site`` ends with 1 and a list if a page loads
anything from another server, links to a page that is not there, or shows a picture that
is not there or has no words for those who do not see it.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["find_faults"]

#: What a browser fetches by itself, and the attribute that says from where.
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src"}
#: Kinds of ``<link>`` that are only told, not fetched.
_TOLD = {"canonical", "index", "search", "next", "prev", "author", "copyright"}


def find_faults(site: Path) -> list[str]:
    """Return one line a fault, of all pages of a site."""
    faults = []
    for page in sorted(site.rglob("*.html")):
        if "_static" in page.relative_to(site).parts:
            continue
        reader = _Page()
        reader.feed(page.read_text(encoding="utf-8"))
        name = page.relative_to(site)
        for address in reader.loads + reader.links:
            parts = urlsplit(address)
            outside = bool(parts.scheme or parts.netloc)
            if address.startswith(("data:", "mailto:", "#")) or not parts.path:
                continue
            if outside and address in reader.loads:
                faults.append(f"{name}: loads {address}")
            elif not outside and not (page.parent / unquote(parts.path)).exists():
                faults.append(f"{name}: there is no {address}")
        faults += [f"{name}: no words for {one}" for one in reader.wordless]
    return faults


class _Page(HTMLParser):
    """What a page loads, links to, and shows without words."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.wordless: list[str] = []

    def handle_starttag(self, tag: str, found: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        values = {name: value or "" for name, value in found}
        address = values.get(_LOADS.get(tag, ""), "")
        if address:
            self.loads.append(address)
        if tag == "img" and "alt" not in values:
            self.wordless.append(address)
        if tag == "link" and not set(values.get("rel", "").split()) & _TOLD:
            self.loads.append(values.get("href", ""))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])


def main() -> int:
    """Print the faults of the site that is named; return the exit status."""
    faults = find_faults(Path(sys.argv[1]))
    sys.stdout.write("".join(f"{one}\n" for one in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
