"""The listener program with the real diagnosis, spoken to as supervisord speaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from llama_gguf.runtime import failure as failures
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir, Snapshot, locate, parse
from llama_gguf.settings import snapshot as snapshots

COMMAND = (sys.executable, "-W", "error", "-P", "-m", "llama_gguf.cli.listener")


def test_an_event_is_judged(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    settings = parse({"model": {"path": "/m"}, "paths": {"run_dir": str(tmp_path)}})
    snapshots.write(Snapshot(settings=settings, locations=locate(settings, {})), run.snapshot)
    run.supervisord_log.write_text("2026 WARN exited: engine (exit status 78; not expected)\n")
    run.log("engine").write_text("error: /m: no such model\nhint: correct model.path\n")
    payload = b"processname:engine groupname:engine from_state:STARTING tries:1"
    event = b"ver:3.0 serial:1 pool:l poolserial:1 eventname:PROCESS_STATE_BACKOFF len:%d\n" % len(payload) + payload
    env = {**os.environ, RUN_DIR_VARIABLE: str(tmp_path)}
    done = subprocess.run(COMMAND, input=event, env=env, capture_output=True, timeout=60, check=False)
    failure = failures.read(run.failure)
    assert failure is not None
    assert (failure.cause, failure.fix, failure.exit_status) == ("/m: no such model", "correct model.path", 78)
    assert done.stdout == b"READY\n"  # supervisord is not there to be told, so the event counts as not handled
    assert b"giving up" in done.stderr


def test_it_costs_nothing_until_something_happens() -> None:
    """It waits beside every appliance: no pydantic, no settings, no asyncio before the first event."""
    code = "import sys; import llama_gguf.cli.listener; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"pydantic", "llama_gguf.settings", "asyncio", "click", "xmlrpc.client"}


def test_it_ends_with_supervisord() -> None:
    done = subprocess.run(COMMAND, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"READY\n")
