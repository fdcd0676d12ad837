"""What a person at a terminal gets to see of the log: one row a line, no data, and llama-server's own lines only where
they explain a failure.

Where output goes elsewhere, or `logging` asks for JSON or debug lines, nothing is held back. The log files always hold
everything.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_gguf.logs import is_ours, shorten

from .programs import ENGINE

if TYPE_CHECKING:
    from llama_gguf.settings.sections.logging import Logging

_LEAST_COLUMNS = 40
_USUAL = (80, 24)


def watching(descriptor: int, logging: Logging) -> Screen | None:
    """Return the terminal behind `descriptor`, or None where lines go out as they are."""
    if logging.format != "text" or logging.level == "debug" or not os.isatty(descriptor):
        return None
    return Screen(descriptor)


class Screen:
    """A terminal, as wide as it is at the time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def columns(self) -> int:
        """How many characters fit on a row."""
        try:
            found = os.get_terminal_size(self._descriptor)
        except OSError:  # it is gone
            found = os.terminal_size(_USUAL)
        return max(_LEAST_COLUMNS, found.columns or _USUAL[0])

    def shows(self, program: str, line: str) -> bool:
        """Return whether this line of a program's log is shown as it comes."""
        return program != ENGINE or is_ours(line)

    def shorten(self, line: str) -> str:
        """Return a log line of ours as it is shown."""
        return shorten(line, self.columns)

    def render(self, program: str, line: bytes) -> bytes | None:
        """Return what the log's follower is to write for `line`, None for nothing."""
        text = line.decode("utf-8", "replace")
        return self.shorten(text).encode() if self.shows(program, text) else None
