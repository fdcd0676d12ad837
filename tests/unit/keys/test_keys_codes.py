"""The table of codes is what the code raises."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from llama_gguf.keys import codes
from llama_gguf.keys.codes import KEYS_CODES

PACKAGE = Path(codes.__file__).parents[1]


def _raised() -> Iterator[str]:
    for path in (*(PACKAGE / "keys").glob("*.py"), PACKAGE / "cli" / "keys.py", PACKAGE / "cli" / "audit.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                yield str(node.value.value)


def test_every_code_is_in_the_table_and_the_table_has_no_other() -> None:
    assert set(_raised()) == set(KEYS_CODES)
