"""The table of codes is what the code raises."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from llama_gguf.keys import error_codes
from llama_gguf.keys.error_codes import KEYS_CODES

PACKAGE = Path(error_codes.__file__).parents[1]


def _raised() -> Iterator[str]:
    commands = PACKAGE / "cli/commands"
    for path in (
        *(PACKAGE / "keys").glob("*.py"),
        commands / "keys.py",
        commands / "audit.py",
        PACKAGE / "atomic_file.py",
        PACKAGE / "audit.py",
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                yield str(node.value.value)


def test_every_code_is_in_the_table_and_the_table_has_no_other() -> None:
    assert set(_raised()) == set(KEYS_CODES)
