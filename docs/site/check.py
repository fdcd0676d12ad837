"""Looks through a built site: every link within it leads somewhere, and a page loads nothing from another host.

Sphinx has checked the links in the Markdown; this checks what readers get, the theme's and the generated ones too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("image", "href")}
_IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


class _Page(HTMLParser):
    """What one page of HTML links to, loads and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = _IN_CSS.findall(text)
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag's links and ids."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value or "")
            elif (tag, name) in _LOADED:
                self.loaded.append(value or "")
            elif tag == "a" and name == "href":
                self.links.append(value or "")


def defects(site: Path) -> list[str]:
    """Return what is wrong with the site, a line each."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = [f"{path.relative_to(site)}: {text}" for path, page in pages.items() for text in _wrong(path, page, pages)]
    for path in sorted(site.rglob("*.css")):
        foreign = _IN_CSS.findall(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)}: loads {url} from another host" for url in foreign]
    return found


def _wrong(path: Path, page: _Page, pages: dict[Path, _Page]) -> Iterator[str]:
    for url in page.loaded:
        if urlsplit(url).netloc:
            yield f"loads {url} from another host"
    for url in [*page.links, *page.loaded]:
        parts = urlsplit(url)
        if parts.scheme or parts.netloc:
            continue
        target = Path(path.parent, unquote(parts.path)).resolve() if parts.path else path
        if not target.exists():
            yield f"a link leads to {url}, which is not there"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            yield f"a link leads to {url}, and that page has no such place"
