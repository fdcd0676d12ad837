"""A program that changes keys files in processes of their own, each of which dies by SIGKILL after some of its steps.

Reads lines of `STEP CHANGE FILE` and answers each with the wait status of the process it forked and the steps that
process went through. CHANGE is `generate`, `update`, `rotate` (with a request id, so with a pepper) or `import`; STEP 0
lets the process live. It forks because starting Python anew for each of a hundred steps takes most of a minute.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from llama_gguf.audit import AuditLog
from llama_gguf.keys.admin import KeyAdmin
from llama_gguf.keys.store import KeyStore


def change(path: Path, what: str, last: int, steps: int) -> None:
    """Do the change, or the first `last` steps of it; write each step to the file descriptor `steps`."""
    left = last

    def at(step: str) -> None:
        nonlocal left
        os.write(steps, step.encode() + b" ")
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    admin = KeyAdmin(KeyStore(path, failpoint=at), AuditLog(path.with_name("audit.jsonl"), failpoint=at), actor="test")
    if what == "generate":
        admin.generate("carol", secret="sk-" + "c" * 40)
    elif what == "update":
        admin.update("alice", note="changed", requests_per_minute=7)
    elif what == "rotate":
        admin.rotate("alice", request_id="request-1")
    else:
        admin.import_file(path)


def main() -> None:
    """Serve one line after another."""
    for line in sys.stdin:
        last, what, file = line.rstrip("\n").split(" ", 2)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            change(Path(file), what, int(last), writer)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as steps:
            told = steps.read()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), told, flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
