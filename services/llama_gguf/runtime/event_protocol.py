"""supervisord's event listener protocol: header lines and payloads of a stated length on stdin, results on stdout.

Imports nothing of ours: the listener waits here for its first event, which never comes while no program exits, so until
then it must cost neither start-up time nor memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO


def serve(stdin: BinaryIO, stdout: BinaryIO, handle: Callable[[str, dict[str, str]], None]) -> None:
    """Call `handle` with each event's state (as in `EXITED`) and payload, until supervisord closes stdin.

    An event is acknowledged when `handle` returns; if this process exits before, supervisord sends it again.
    """
    while True:
        stdout.write(b"READY\n")
        stdout.flush()
        header = _pairs(stdin.readline())
        if not header:
            return
        payload = _pairs(stdin.read(int(header["len"])))
        handle(header["eventname"].removeprefix("PROCESS_STATE_"), payload)
        stdout.write(b"RESULT 2\nOK")
        stdout.flush()


def _pairs(line: bytes) -> dict[str, str]:
    return dict(part.split(":", 1) for part in line.decode("utf-8", "replace").split())
