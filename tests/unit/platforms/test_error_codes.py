"""The table of codes is whole and has nothing else, and each code is provoked by a golden case or a test."""

from __future__ import annotations

import ast
from pathlib import Path

from llama_gguf import platforms
from llama_gguf.platforms.error_codes import RENDER_CODES
from support.rendering import ROOT

PACKAGE = Path(platforms.__file__).parent


def reported() -> set[str]:
    """Return the first argument of every findings.error(…) and findings.warn(…) in the package."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("error", "warn")
            ):
                code = node.args[0]
                assert isinstance(code, ast.Constant), f"{file}: a code is not written out"
                found.add(str(code.value))
    return found


def test_every_code_is_in_the_table_and_the_table_has_no_other() -> None:
    assert reported() == set(RENDER_CODES)


def test_every_code_is_tested() -> None:
    folder = ROOT / "tests"
    files = [*folder.glob("golden/render/*/messages.txt"), *folder.glob("unit/platforms/**/*.py")]
    text = "".join(file.read_text("utf-8") for file in files)
    assert [code for code in RENDER_CODES if f"[{code}]" not in text and f'"{code}"' not in text] == []
