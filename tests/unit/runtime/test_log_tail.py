"""The last lines of a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.runtime.log_tail import last_error, last_hint, tail_lines


def test_tail_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail_lines(path) == []
    path.write_bytes(b"".join(b"line %d \x1b[31m\xff\n" % number for number in range(10_000)))
    tail = tail_lines(path, 2)
    assert tail == ["line 9998 ?[31m\ufffd", "line 9999 ?[31m\ufffd"]


@pytest.mark.parametrize(
    ("tail", "cause", "hint"),
    [
        ([], "", ""),
        (["a", "b"], "b", ""),
        (["error: x", "hint: y", "z"], "x", "y"),
    ],
)
def test_last_words(tail: list[str], cause: str, hint: str) -> None:
    assert last_error(tail) == cause
    assert last_hint(tail) == hint
