from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from llama_gguf.cli.appliance import Facts
from llama_gguf.cli.commands.status import as_dict, show, status
from llama_gguf.cli.process_memory import ProcessMemory
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.crashes import Crash
from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.engine_variant import EngineVariant, Rejected
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.notices import Notice
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.rundir.supervisord_client import ProgramInfo
from llama_gguf.settings import RunDir, locate, parse
from llama_gguf.states import Phase

SETTINGS = parse({"model": {"path": "/m"}, "health": {"host": "127.0.0.1", "port": 1}})
SNAPSHOT = Snapshot(settings=SETTINGS, locations=locate(SETTINGS, {}))
PROGRAMS = (ProgramInfo("engine", "RUNNING", 7, 65, ""), ProgramInfo("gateway", "BACKOFF", 0, 0, "Exited too quickly"))
CRASHES = (Crash("engine", 5, 0.0, None, "SIGKILL"), Crash("engine", 6, 60.0, 1, None))
FAILURE = Failure("engine", 1, None, "engine keeps crashing", "no memory", "lower slots", ("x",), 0.0)
READY: dict[str, Any] = {
    "state": "ready",
    "phase": "serving",
    "model": "tiny",
    "reason": "",
    "since": "T",
    "progress": None,
}


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "run": RunDir(root=Path("/r")),
        "snapshot": SNAPSHOT,
        "programs": PROGRAMS,
        "crashes": CRASHES,
        "health": READY,
        "engine": None,
        "failure": None,
    }
    return Facts(**{**values, **changes})


@pytest.mark.parametrize("length", range(40, 90))
def test_a_cause_is_never_broken_by_the_width_of_the_terminal(length: int) -> None:
    """A wrapped line used to end in a space, or not, by the length of a path."""
    cause = f"/{'p' * length}/bad.gguf is not a valid GGUF file"
    out = io.StringIO()
    failure = Failure("engine", 78, None, "engine refused to start", cause, "fetch it again", (cause,), 0.0)
    show(facts(failure=failure), Console(file=out, width=80))
    assert out.getvalue().count(cause) == 1  # and the log's line that says the same is not repeated


def test_memory_that_can_be_dropped_is_shown_apart() -> None:
    found = ProcessMemory(4027 << 20, 282 << 20, 0)
    assert "\nmemory of the engine: 4027 MiB anonymous, 282 MiB of mapped files" in text(
        facts(memory={"engine": found})
    )
    shown = facts(memory={"engine": replace(found, swapped=50 << 20)})
    assert text(shown).endswith("282 MiB of mapped files, 50 MiB swapped out")
    programs = {program["name"]: program["memory"] for program in as_dict(shown)["programs"]}
    assert programs == {
        "engine": {"anonymous_bytes": 4027 << 20, "mapped_bytes": 282 << 20, "swapped_bytes": 50 << 20},
        "gateway": None,
    }


def test_memory_that_is_unknown_is_not_shown() -> None:
    assert "memory" not in text(facts())


@pytest.mark.parametrize(
    ("found", "state", "code"),
    [
        (facts(), "ready", 0),
        (facts(health={**READY, "state": "starting"}), "starting", 75),
        (facts(health={**READY, "state": "unready"}), "unready", 75),
        (facts(health={**READY, "state": "failed"}), "failed", 69),
        (facts(health=None), "starting", 75),
        (facts(health=None, was_ready=True), "unready", 75),
        (facts(health=None, failure=FAILURE), "failed", 69),
        (facts(programs=(), health=None), "stopped", 69),
        (facts(programs=(), health=None, failure=FAILURE), "failed", 69),
    ],
)
def test_state_and_exit_code(found: Facts, state: str, code: int) -> None:
    assert (found.state, found.exit_code) == (state, code)


def text(found: Facts) -> str:
    out = io.StringIO()
    show(found, Console(file=out, width=160))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_shown() -> None:
    assert text(facts()) == (
        "ready: http://localhost:8000, tiny, serving, since T\n"
        "program  state    pid  uptime   restarts  last end\n"
        "engine   running  7    0:01:05  2         exit status 1 at 1970-01-01T00:01:00Z\n"
        "gateway  backoff                0         Exited too quickly"
    )


def test_progress_and_failure_are_shown() -> None:
    loading = {**READY, "state": "starting", "phase": "downloading", "progress": {"percent": 41.5}}
    step = EnginePhase(Phase.DOWNLOADING, detail="o/n/tiny.gguf")
    assert text(facts(health=loading, engine=step)).startswith(
        "starting: http://localhost:8000, tiny, downloading, o/n/tiny.gguf, 41.5 %, since T\n"
    )
    assert "o/n/tiny.gguf" not in text(facts(engine=step))
    stopped = text(facts(programs=(), failure=FAILURE, health=None))
    assert stopped.startswith(
        "failed: nothing runs in /r\nlast failure, 1970-01-01T00:00:00Z:\nllama-gguf: engine keeps"
    )
    assert "fix: lower slots" in stopped
    assert "the health server does not answer" in text(facts(health=None))


def test_warnings_are_shown_while_it_runs() -> None:
    record = EnginePhase(Phase.STARTING, warnings=(Notice("no-gpu", "no [GPU]", "get one"),))
    assert text(facts(engine=record)).splitlines()[-1] == "warning[no-gpu]: no [GPU]; get one"
    assert as_dict(facts(engine=record))["warnings"] == [{"code": "no-gpu", "message": "no [GPU]", "hint": "get one"}]
    assert "no-gpu" not in text(facts(engine=record, programs=(), health=None))
    assert as_dict(facts(engine=None))["warnings"] == []


@pytest.mark.parametrize(
    ("variant", "line"),
    [
        (EngineVariant("zen4", 7), "CPU variant: zen4"),
        (EngineVariant("zen4", 7, pinned=True), "CPU variant: zen4, pinned by engine.cpu_variant"),
        (
            EngineVariant("zen4", 7, rejected=(Rejected("sapphirerapids"), Rejected("icelake", "", 6))),
            "CPU variant: zen4, crashed on this machine and not used: sapphirerapids, icelake",
        ),
        (
            EngineVariant(rejected=(Rejected("zen4", "", 6),)),
            "CPU variant: none yet, crashed on this machine and not used: zen4",
        ),
    ],
)
def test_the_variant_of_the_cpu_code(variant: EngineVariant, line: str) -> None:
    assert text(facts(variant=variant)).splitlines()[-1] == line
    shown = as_dict(facts(variant=variant))["cpu_variant"]
    assert shown["rejected"] == variant.rejected_names


def test_no_choice_of_the_cpu_code_is_no_news() -> None:
    for variant in (None, EngineVariant()):
        assert "CPU" not in text(facts(variant=variant))
        assert as_dict(facts(variant=variant))["cpu_variant"] is None


def test_json() -> None:
    found = as_dict(facts(failure=FAILURE))
    assert json.loads(json.dumps(found)) == found
    assert found["url"] == "http://localhost:8000"
    assert found["programs"][0] == {
        "name": "engine",
        "state": "RUNNING",
        "pid": 7,
        "uptime_seconds": 65,
        "restarts": 2,
        "last_end": "exit status 1 at 1970-01-01T00:01:00Z",
        "memory": None,
    }
    assert found["programs"][1]["pid"] is None
    assert found["failure"]["cause"] == "no memory"
    assert as_dict(facts(snapshot=None))["url"] is None


def test_last_end_by_a_signal_or_by_nobody_knows_what() -> None:
    assert "SIGKILL" in as_dict(facts(crashes=CRASHES[:1]))["programs"][0]["last_end"]
    unknown = (Crash("engine", 5, 0.0, None, None),)
    assert as_dict(facts(crashes=unknown))["programs"][0]["last_end"].startswith("unknown at ")


def test_the_command(tmp_path: Path) -> None:
    snapshots.write(SNAPSHOT, tmp_path / "settings.json")
    failures.write(FAILURE, tmp_path / "failure.json")
    done = CliRunner().invoke(status, ["--run-dir", str(tmp_path)])
    assert done.exit_code == 69
    assert done.output.startswith("failed: nothing runs in ")
    done = CliRunner().invoke(status, ["--run-dir", str(tmp_path), "--json"])
    assert json.loads(done.output)["state"] == "failed"
