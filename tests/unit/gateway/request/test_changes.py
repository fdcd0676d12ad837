"""What the client of a changed request is told."""

from __future__ import annotations

from llama_gguf.gateway.request.changes import MAX_WARNINGS, Changes


def test_each_warning_is_told_once_and_their_number_is_bounded() -> None:
    changes = Changes()
    assert not changes.changed
    for number in (1, 1, *range(2, 40)):
        changes.warn(f"field {number} is ignored")
    assert changes.warnings == [f"field {number} is ignored" for number in range(1, MAX_WARNINGS + 1)]


def test_warnings_are_lines_of_a_head_whatever_the_client_has_written() -> None:
    changes = Changes()
    assert changes.header_lines() == ""
    changes.warn("`user` is ignored")
    changes.warn('x"\r\nSet-Cookie: a=1\r\n\r\n\u2028\x00\\')
    changes.warn("y" * 5000)
    lines = changes.header_lines().split("\r\n")
    assert lines[0] == 'Warning: 199 llama-gguf "`user` is ignored"'
    assert lines[1] == 'Warning: 199 llama-gguf "x???Set-Cookie: a=1???????"'
    assert lines[2] == f'Warning: 199 llama-gguf "{"y" * 200}"'
    assert lines[3:] == [""]
