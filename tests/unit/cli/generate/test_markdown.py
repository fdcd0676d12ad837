"""Cells of a table."""

from __future__ import annotations

from llama_gguf.cli.generate import markdown


def test_table_cells_cannot_break_the_table() -> None:
    assert markdown.table(("a", "b"), [("x", "y")]) == "| a | b |\n| --- | --- |\n| x | y |"
    assert "\\|" in markdown.text("a|b\nc")
