"""A supervised program with knobs, for tests of supervision: `standin.py --name=a --exit=3 --after=0.2 …`.

Appends one line an event to the file in STANDIN_MARKS: `NAME start PID`, `NAME term`, `NAME end`. Also plays the event
listener (`--listener`), which is the real one without the engine's diagnosis.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType


def mark(text: str) -> None:
    """Append one line; small appends are atomic."""
    with Path(os.environ["STANDIN_MARKS"]).open("a", encoding="utf-8") as file:
        file.write(f"{text} {time.monotonic():.3f}\n")


def say(line: str) -> None:
    """Write a line to stdout at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do as the knobs say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--exit", type=int, help="exit with this status, after --after seconds")
    parser.add_argument("--after", type=float, default=0.0)
    parser.add_argument("--say", default="", help="printed at the start, with _ as space and = as colon")
    parser.add_argument("--lines", type=int, default=0, help="print this many numbered lines")
    parser.add_argument(
        "--log", action="store_true", help="print an INFO and a WARNING line as our programs do, long ones"
    )
    parser.add_argument("--linger", type=float, default=0.0, help="seconds between SIGTERM and the end")
    parser.add_argument("--deaf", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--orphan", action="store_true", help="leave a grandchild behind that ignores SIGTERM")
    parser.add_argument("--listener", action="store_true")
    knobs = parser.parse_args()
    mark(f"{knobs.name} start {os.getpid()}")
    if knobs.listener:
        listen()
        return
    stopped = threading.Event()

    def on_term(_number: int, _frame: FrameType | None) -> None:
        mark(f"{knobs.name} term")
        if not knobs.deaf:
            stopped.set()

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGHUP, lambda _number, _frame: mark(f"{knobs.name} hup"))
    if knobs.say:
        say(knobs.say.replace("_", " ").replace("=", ":"))
    if knobs.log:
        for level in ("INFO", "WARNING"):
            say(f"2026-01-01T00:00:00.000Z | {level} | {knobs.name} | a fact | argv=['{'x' * 200}'] hint=the end")
    for number in range(knobs.lines):
        say(f"line {number} {'x' * 100}")
    if knobs.orphan:
        leave_orphan()
    if knobs.exit is not None:
        stopped.wait(knobs.after)
        sys.exit(knobs.exit)
    while not stopped.wait(0.5):
        pass
    time.sleep(knobs.linger)
    mark(f"{knobs.name} end")


def leave_orphan() -> None:
    """Start a process that outlives its parent and ignores SIGTERM."""
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    inner = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {script!r}])"
    subprocess.run([sys.executable, "-c", inner], check=True)


def listen() -> None:
    """Be the fatal listener."""
    from llama_gguf import logs
    from llama_gguf.rundir import snapshot as snapshots
    from llama_gguf.rundir.supervisord_client import Supervisord
    from llama_gguf.runtime.event_protocol import serve
    from llama_gguf.runtime.fatal_listener import FatalListener
    from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir

    run = RunDir(root=Path(os.environ[RUN_DIR_VARIABLE]))
    rules = snapshots.read(run.snapshot).settings.supervisor
    logs.configure("listener", format="text", level="info", stream=sys.stderr)
    supervisord = Supervisord(run.supervisord_socket)
    listener = FatalListener(run, rules, supervisord, lambda *_: None, gave_up=lambda *_: None)
    serve(sys.stdin.buffer, sys.stdout.buffer, listener.handle)


if __name__ == "__main__":
    main()
