from __future__ import annotations

from llama_gguf.settings.words import closest


def test_closest_wants_some_likeness() -> None:
    assert closest("Fair", ["fair", "fifo"]) == "fair"
    assert closest("zebra", ["fair", "fifo"]) is None
