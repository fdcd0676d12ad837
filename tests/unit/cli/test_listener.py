"""The listener program with the real diagnosis, spoken to as supervisord speaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from llama_gguf.engine import variant_memory
from llama_gguf.engine.variant_memory import CrashedVariant
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.engine_variant import EngineVariant, Rejected
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir, locate, parse

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


def judge(run: RunDir, event: str) -> None:
    """Let the listener judge one event of the engine; supervisord is not there to be asked anything."""
    payload = b"processname:engine groupname:engine from_state:STARTING tries:1 pid:7"
    head = f"ver:3.0 serial:1 pool:l poolserial:1 eventname:PROCESS_STATE_{event} len:{len(payload)}\n"
    env = {**os.environ, RUN_DIR_VARIABLE: str(run.root)}
    subprocess.run(COMMAND, input=head.encode() + payload, env=env, capture_output=True, timeout=60, check=False)


def crashed_with(folder: Path, record: EngineVariant) -> RunDir:
    """Return the run directory of an engine that ended by SIGILL while it ran a variant."""
    run = RunDir(root=folder)
    paths = {"run_dir": str(folder), "data_dir": str(folder / "data")}
    settings = parse({"model": {"path": "/m"}, "paths": paths})
    snapshots.write(Snapshot(settings=settings, locations=locate(settings, {})), run.snapshot)
    run.supervisord_log.write_text(
        "2026 INFO spawned: 'engine' with pid 7\n2026 WARN exited: engine (terminated by SIGILL; not expected)\n"
    )
    engine_variant.write(record, run.engine_variant)
    return run


def test_a_variant_that_crashed_is_no_failure_while_another_is_left(tmp_path: Path) -> None:
    run = crashed_with(tmp_path, EngineVariant("zen4", 7, lower=("x64",)))
    judge(run, "BACKOFF")
    assert not run.failure.exists()


def test_when_the_lowest_crashes_too_all_are_named_and_this_runs_are_forgiven(tmp_path: Path) -> None:
    rejected = (Rejected("icelake", "i"), Rejected("zen4", "z", 6))
    run = crashed_with(tmp_path, EngineVariant("x64", 7, cpu="cpu", rejected=rejected))
    memory = tmp_path / "data" / "engine-cpu-variants.json"
    variant_memory.add(memory, [CrashedVariant("cpu", "icelake", "i"), CrashedVariant("cpu", "zen4", "z")])
    judge(run, "BACKOFF")
    failure = failures.read(run.failure)
    assert failure is not None
    assert failure.cause.endswith("CPU variants tried: icelake, zen4, x64")
    assert variant_memory.read(memory) == (CrashedVariant("cpu", "icelake", "i"),)


def test_a_pinned_variant_that_crashed_says_to_unpin_it(tmp_path: Path) -> None:
    run = crashed_with(tmp_path, EngineVariant("zen4", 7, pinned=True))
    judge(run, "BACKOFF")
    failure = failures.read(run.failure)
    assert failure is not None
    assert "the CPU variant zen4, which engine.cpu_variant pins, crashed" in failure.cause
    assert failure.fix == "set engine.cpu_variant to auto, or to a lower variant"


def test_it_costs_nothing_until_something_happens() -> None:
    """It waits beside every appliance: no pydantic, no settings, no asyncio before the first event."""
    code = "import sys; import llama_gguf.cli.listener; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"pydantic", "llama_gguf.settings", "asyncio", "click", "xmlrpc.client"}


def test_it_ends_with_supervisord() -> None:
    done = subprocess.run(COMMAND, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"READY\n")
