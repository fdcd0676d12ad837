"""A terminal for a program under test: what it writes there goes to a file.

with terminal(tmp_path / "screen.txt", columns=100) as tty:
    subprocess.Popen(command, stdout=tty, stderr=tty)
"""

from __future__ import annotations

import contextlib
import os
import pty
import termios
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def terminal(sink: Path, *, columns: int, rows: int = 30) -> Iterator[int]:
    """Yield the descriptor of a terminal of this size; at the end everything written to it is in `sink`."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (rows, columns))
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST  # newlines arrive as they were written
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    reader = threading.Thread(target=_copy, args=(master, sink), daemon=True)
    reader.start()
    try:
        yield slave
    finally:
        os.close(slave)  # its last holder's end is the reader's end
        reader.join(10)
        os.close(master)


def _copy(master: int, sink: Path) -> None:
    with sink.open("wb") as file, contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
        while block := os.read(master, 65_536):
            file.write(block)
            file.flush()
