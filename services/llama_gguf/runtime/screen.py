"""The log on a terminal: one row per line, without data, and without llama-server's own lines.

Where stdout is no terminal, or `logging` sets JSON or debug, all lines are written. The log files always have all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_gguf.logs import is_own_line, shorten
from llama_gguf.settings.locations import is_engine

if TYPE_CHECKING:
    from llama_gguf.settings.sections.logging import Logging

_MIN_COLUMNS = 40
_DEFAULT_SIZE = (80, 24)


def open_screen(descriptor: int, logging: Logging) -> Screen | None:
    """Return the terminal on `descriptor`, None where lines are written unchanged."""
    if logging.format != "text" or logging.level == "debug" or not os.isatty(descriptor):
        return None
    return Screen(descriptor)


class Screen:
    """A terminal, at its present width."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def columns(self) -> int:
        """The number of characters in a row."""
        try:
            found = os.get_terminal_size(self._descriptor)
        except OSError:  # it is closed
            found = os.terminal_size(_DEFAULT_SIZE)
        return max(_MIN_COLUMNS, found.columns or _DEFAULT_SIZE[0])

    def shows(self, program: str, line: str) -> bool:
        """Return whether this line of a program's log is shown when it is written."""
        return not is_engine(program) or is_own_line(line)

    def shorten(self, line: str) -> str:
        """Return our own log line in the form that is shown."""
        return shorten(line, self.columns)

    def render(self, program: str, line: bytes) -> bytes | None:
        """Return what the log follower writes for `line`, None for nothing."""
        text = line.decode("utf-8", "replace")
        return self.shorten(text).encode() if self.shows(program, text) else None
