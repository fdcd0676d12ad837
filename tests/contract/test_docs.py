"""What the pages for people name exists: files, folders, tests, headings, make targets. And hooks run what CI runs."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "services" / "llama_gguf"
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "SECURITY", "README")),
]

_URL = re.compile(r"\b[a-z]+://[^\s)>\"'`]+")
# A word that could be a path. What stands behind a slash, a dollar sign or another such character is a part of
# something else: an absolute path, a route of the API, a variable.
_WORD = re.compile(r"(?<![\w/.~$:*-])(?P<path>\.?[\w*][\w.*-]*(?:/[\w.*-]+)*/?)(?:::(?P<test>\w+))?")
_LINK = re.compile(r"\]\((?P<target>[^)\s#]*)(?:#(?P<heading>[^)\s]+))?\)")
_MAKE = re.compile(r"`(?:\$ )?make (?P<targets>[a-z][a-z -]*)")
# Kinds of files that only a repository has: such a name is one of ours wherever it begins, and without a folder too.
_SOURCES = {".py", ".md"}
_OURS = {*_SOURCES, ".cmake", ".sh", ".toml", ".lock", ".yml", ".yaml"}


@functools.cache
def _first_names() -> frozenset[str]:
    """Return the names that a path of ours may begin with."""
    tops = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    tops |= {".github", ".runpod", ".ci", ".pre-commit-config.yaml"}
    return frozenset(tops | {path.name for path in PACKAGE.iterdir()})


def _is_path_of_ours(word: str) -> bool:
    path = PurePosixPath(word)
    if path.suffix in _SOURCES and path.stem:
        return True
    return "/" in word and (path.suffix in _OURS or path.parts[0] in _first_names())


def _exists(word: str, page: Path) -> bool:
    bases = (ROOT, page.parent, PACKAGE)
    if "*" in word:
        return any(next(base.glob(word), None) is not None for base in bases)
    return any((base / word).is_dir() if word.endswith("/") else (base / word).exists() for base in bases)


@functools.cache
def _tests_in(file: Path) -> frozenset[str]:
    """Return the names of the tests in a file that can run."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(
        node.name
        for node in functions
        if node.name.startswith("test_")
        and not {"pytest.mark.skip", "pytest.mark.xfail"}
        & {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
    )


@functools.cache
def _make_targets() -> frozenset[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def _headings(text: str) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def named_paths(text: str) -> Iterator[tuple[str, str]]:
    """Yield every path of the repository that a page's text names, and the test in it, or ""."""
    for match in _WORD.finditer(_URL.sub(" ", text)):
        word = match["path"].rstrip(".")
        if match["test"] or _is_path_of_ours(word):
            yield word, match["test"] or ""


def wrong_names(text: str, page: Path) -> list[str]:
    """Return what `page`, whose text is `text`, names and what is not there."""
    wrong = []
    for word, test in named_paths(text):
        if not _exists(word, page):
            wrong.append(word)
        elif test and test not in _tests_in(ROOT / word):
            wrong.append(f"{word}::{test}")
    for link in _LINK.finditer(_URL.sub("", text)):
        target = page.parent / link["target"] if link["target"] else page
        if not target.exists():
            wrong.append(link["target"])
        elif link["heading"]:
            there = text if target == page else target.read_text(encoding="utf-8")
            if link["heading"] not in _headings(there):
                wrong.append(f"{link['target']}#{link['heading']}")
    for match in _MAKE.finditer(text):
        wrong += [f"make {target}" for target in match["targets"].split() if target not in _make_targets()]
    return list(dict.fromkeys(wrong))


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_what_a_page_names_is_there(page: Path) -> None:
    assert wrong_names(page.read_text(encoding="utf-8"), page) == []


@pytest.mark.parametrize(
    "text",
    [
        "see `services/llama_gguf/gatewey/app.py`",
        "see `gateway/ap.py` for more",
        "prose naming docs/architectur.md.",
        "`gatewy/app.py`",
        "`nowhere.py`",
        "`image/engine/*.lok`",
        "`tests/contract/test_docs.py::test_of_nothing`",
        "`tests/contract/test_dogs.py::test_what_a_page_names_is_there`",
        "```mermaid\nA[keys/stor.py] --> B\n```",
        "[a page](docs/none)",
        "[a heading](#none)",
        "[a heading elsewhere](CONTRIBUTING.md#none)",
        "`make everything-nice`",
        "`config/` is an operator's, `konfig/config.yaml` is not",
    ],
)
def test_a_wrong_name_is_found(text: str) -> None:
    assert len(wrong_names(text, ROOT / "README.md")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "`/v1/chat/completions` and `/engine/metrics`, `http://localhost/config/none.yaml`, `/tmp/broken.yaml`",
        "`.venv/bin/llama-gguf check`, `$HOME/keys/x`, `~/models/x.gguf`, `RUN_DIR/failure.json`, input/output",
        "`ggml-org/gemma-3-4b-it-GGUF`, `settings.json`, `requests/s`",
    ],
)
def test_what_is_no_path_of_ours_is_left_alone(text: str) -> None:
    assert list(named_paths(text)) == []


def test_the_pages_name_a_lot() -> None:
    """So that a change of form, which the search above does not see through, is noticed."""
    names = {page.name: list(named_paths(page.read_text(encoding="utf-8"))) for page in PAGES}
    assert len(names["architecture.md"]) > 100
    assert sum(bool(test) for _, test in names["threat-model.md"]) > 50
    assert all(names.values())


def test_the_picture_of_a_run_is_small_and_gives_nothing_away() -> None:
    picture = (ROOT / "docs/run.svg").read_text(encoding="utf-8")
    assert len(picture) < 30_000
    assert not re.search(r"sk-\w|/tmp/|/home/|/root/|@font-face|url\((?!#)", picture)
    assert "make&#160;run" in picture
    assert "(docs/run.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_hooks_run_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    lint = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    words = [shlex.split(hook["entry"]) for hook in hooks]
    assert [entry[2] if entry[:2] == ["bash", "-c"] else " ".join(entry) for entry in words] == lint
    assert not [hook["id"] for hook in hooks if hook["pass_filenames"] or hook["language"] != "system"]
    assert len({hook["id"] for hook in hooks}) == len(hooks)


def test_a_bug_report_asks_for_the_diagnostics() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8"))
    asked = [part for part in form["body"] if "llama-gguf diagnostics" in part["attributes"].get("label", "")]
    assert [part["validations"]["required"] for part in asked] == [True]
