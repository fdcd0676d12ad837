"""The documentation site builds without a warning, and what is wrong with a page or a link is noticed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from docs.site import api_page
from docs.site.check import defects

from llama_gguf.settings.sections.gateway import RouteGroup

ROOT = Path(__file__).resolve().parents[2]
built = pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None, reason="`make docs` and `make test` install what the site needs"
)
PAGES = ("*.md", "docs/*.md", "schema/*.md", "image/*.md", "tests/bench/*.md")


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "docs/site/build.py"), "--source", str(source), "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@built
@pytest.mark.slow
def test_the_site_builds_and_has_every_page_once(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert (done.returncode, done.stderr) == (0, "")
    home = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    for page in (page for pattern in PAGES for page in ROOT.glob(pattern) if page != ROOT / "README.md"):
        name = page.relative_to(ROOT).with_suffix(".html").as_posix()
        assert (tmp_path / "site" / name).is_file()
        assert home.count(f'<li class="toctree-l1"><a class="reference internal" href="{name}">') == 1, name
    assert "copybutton.js" in home
    assert "highlight-console" in home
    diagrams = (tmp_path / "site/docs/architecture.html").read_text(encoding="utf-8").count("<svg id=")
    assert diagrams == (ROOT / "docs/architecture.md").read_text(encoding="utf-8").count("```mermaid")
    api = (tmp_path / "site/docs/api.html").read_text(encoding="utf-8")
    assert "POST /v1/chat/completions" in api


WRONG = {
    "[a page](docs/none.md)": "target not found: 'docs/none.md'",
    "[a heading](docs/architecture.md#none)": "local id not found in doc 'docs/architecture': 'none'",
    "[a heading of this page](#none)": "target not found: 'none'",
    "[a file](config/none.yaml)": "target not found: 'config/none.yaml'",
    "![a picture](docs/none.svg)": "not readable: docs/none.svg",
}
"""Something wrong -> what is said about it."""


@built
@pytest.mark.slow
def test_what_is_wrong_with_a_page_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for page in (page for pattern in PAGES for page in ROOT.glob(pattern)):
        (source / page.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, source / page.relative_to(ROOT))
    shutil.copy(ROOT / "schema/openapi.json", source / "schema")
    (source / "docs/stray.md").write_text("# Stray\n", encoding="utf-8")
    with (source / "SECURITY.md").open("a", encoding="utf-8") as file:
        file.write("\n\n".join(["", *WRONG, ""]))
    done = build(source, tmp_path / "site")
    assert done.returncode == 1
    for text in WRONG.values():
        assert any("SECURITY.md" in line and text in line for line in done.stderr.splitlines()), done.stderr
    assert "stray.md: WARNING: document isn't included in any toctree" in done.stderr


def test_routes_that_differ_by_their_path_alone_are_one() -> None:
    errors = {"description": "`too_odd`: It is odd.\n`too_even`: It is even."}
    operation = {
        "tags": ["chat"],
        "summary": "Talk",
        "security": [{"bearer": ["inference"]}],
        "responses": {"200": {"description": "Done.", "content": {"application/json": {}}}, "500": errors},
    }
    description = {
        "info": {"description": "What it is."},
        "components": {"headers": {}},
        "paths": {"/v1/talk": {"post": operation}, "/talk": {"post": operation}},
    }
    text = api_page.markdown(description)
    assert text.count("### ") == 1
    assert "### POST /v1/talk\n\nTalk. Also `/talk`.\n\n- Needs a key with the scope `inference`.\n" in text
    assert "- 200: Done. JSON.\n- Errors: 500 `too_odd`, `too_even`.\n" in text


def test_every_group_of_routes_has_a_heading() -> None:
    description = json.loads((ROOT / "schema" / "openapi.json").read_text(encoding="utf-8"))
    tags = {tag for path in description["paths"].values() for operation in path.values() for tag in operation["tags"]}
    assert tags - set(get_args(RouteGroup)) - {"admin"} == set(api_page.HEADINGS)


GOOD = '<link href="a.css"><script src="a.js"></script><a href="b.html#there">x</a><a href="https://else.where/">y</a>'


def test_a_site_is_looked_through(tmp_path: Path) -> None:
    for name in ("a.css", "a.js"):
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "a.html").write_text(GOOD, encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="there">z</p>', encoding="utf-8")
    assert defects(tmp_path) == []


@pytest.mark.parametrize(
    "html",
    [
        '<a href="c.html">x</a>',
        '<a href="b.html#gone">x</a>',
        '<a href="#gone">x</a>',
        '<img src="gone.png">',
        '<script src="https://else.where/a.js"></script>',
        '<link rel="stylesheet" href="//else.where/a.css">',
        "<style>@import url(https://else.where/font.css)</style>",
    ],
)
def test_a_defect_is_found(tmp_path: Path, html: str) -> None:
    (tmp_path / "a.html").write_text(html, encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="there">z</p>', encoding="utf-8")
    assert len(defects(tmp_path)) == 1


def test_a_font_from_elsewhere_is_found_in_a_style_sheet(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('@font-face { src: url("https://else.where/a.woff2") }', encoding="utf-8")
    assert defects(tmp_path) == ["a.css: loads https://else.where/a.woff2 from another host"]
