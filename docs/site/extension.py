"""What the site does beyond Sphinx and MyST: navigation, the API's page, diagrams, links into the sources, a home."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mermaidx
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from . import api_page

API_PAGE = "docs/api"


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx what there is."""
    app.add_config_value("navigation", {}, "env")
    app.add_directive("mermaid", Mermaid)
    app.add_transform(SourceLinks)
    app.connect("source-read", _complete)
    app.connect("build-finished", _make_home)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _complete(app: Sphinx, page: str, text: list[str]) -> None:
    """Add to a page's text what only the site shows: the navigation to the first, all routes to the API's."""
    if page == app.config.root_doc:
        text[0] += "".join(
            "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *map(_entry, pages), "```", ""])
            for caption, pages in app.config.navigation.items()
        )
    if page == API_PAGE:
        description = json.loads((Path(app.srcdir) / "schema/openapi.json").read_text(encoding="utf-8"))
        text[0] += "\n" + api_page.markdown(description)


def _entry(page: str) -> str:
    return "First steps <self>" if page == "README" else f"/{page}"


class Mermaid(Directive):  # type: ignore[misc]
    """A diagram, drawn into the page when it is built: it needs no script and no network when it is read."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the picture."""
        number = self.state.document.settings.env.new_serialno("mermaid")
        svg = mermaidx.render("\n".join(self.content)).svg().replace("my-svg", f"diagram-{number}")
        return [nodes.raw("", f'<div class="diagram">{svg}</div>', format="html")]


class SourceLinks(SphinxTransform):  # type: ignore[misc]
    """Lets links to what is in the repository and no page lead to the sources: on GitHub where it builds, else here."""

    default_priority = 5

    def apply(self, **_options: object) -> None:
        """Replace them all in one page. A link to what does not exist stays, for Sphinx to warn about."""
        for link in list(self.document.findall(_is_link)):
            target = Path(self.env.relfn2path(link["reftarget"], self.env.docname)[1])
            if target.exists() and self.env.path2doc(str(target)) not in self.env.found_docs:
                link.replace_self(nodes.reference("", "", *link.children, refuri=self._url(target)))

    def _url(self, target: Path) -> str:
        root = Path(self.env.srcdir)
        repository = os.environ.get("GITHUB_REPOSITORY")
        if not repository:
            return os.path.relpath(target, (Path(self.app.outdir) / self.env.docname).parent)
        kind = "tree" if target.is_dir() else "blob"
        server, commit = os.environ["GITHUB_SERVER_URL"], os.environ["GITHUB_SHA"]
        return f"{server}/{repository}/{kind}/{commit}/{target.relative_to(root).as_posix()}"


def _is_link(node: nodes.Node) -> bool:
    """Return whether MyST has made `node` of a link by path, to a page, a file or a folder."""
    return isinstance(node, addnodes.download_reference | addnodes.pending_xref) and node["reftype"] == "myst"


def _make_home(app: Sphinx, failure: Exception | None) -> None:
    """Make the first page the site's home: a server looks for index.html, and Sphinx names it like its source."""
    if failure is None:
        shutil.copyfile(app.outdir / f"{app.config.root_doc}.html", app.outdir / "index.html")
