"""A Reporter for callers that need no progress."""

from __future__ import annotations

from llama_gguf.states import Phase


class Silent:
    """Does nothing."""

    def phase(self, phase: Phase, detail: str) -> None:
        """Do nothing."""

    def progress(self, done: int, total: int | None) -> None:
        """Do nothing."""
