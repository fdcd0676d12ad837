from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from llama_gguf.cli.appliance import Facts, inspect
from llama_gguf.cli.commands.status import as_dict, show, status
from llama_gguf.cli.process_memory import ProcessMemory
from llama_gguf.rundir import engine_reduction, engine_variant, residency
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.crashes import Crash
from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.engine_reduction import EngineReduction
from llama_gguf.rundir.engine_variant import EngineVariant, Rejected
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.notices import Notice
from llama_gguf.rundir.residency import EngineResidency
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.rundir.supervisord_client import ProgramInfo
from llama_gguf.settings import RunDir, locate, parse
from llama_gguf.states import Phase, Residency

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


# --- several models --------------------------------------------------------------------------------------------------

SEVERAL = parse(
    {
        "models": {
            "chat": {"path": "/m", "aliases": ["gpt-4o"]},
            "embed": {"path": "/e", "load": "on_demand"},
            "draw": {"path": "/d", "required": False},
        },
        "health": {"host": "127.0.0.1", "port": 1},
    }
)
BROKEN = Failure("engine-draw", 1, None, "engine-draw keeps crashing", "a bad file", "fetch it again", ("x",), 0.0)


def several_on(run: RunDir, **changes: Any) -> Facts:
    """The facts of three models from the files of a run directory, as if their programs ran."""
    shot = Snapshot(settings=SEVERAL, locations=replace(locate(SEVERAL, {}), run=run))
    snapshots.write(shot, run.snapshot)
    programs = tuple(
        ProgramInfo(f"engine-{name}", state, pid, 5 if pid else 0, "")
        for name, state, pid in (("chat", "RUNNING", 7), ("embed", "STOPPED", 0), ("draw", "FATAL", 0))
    )
    crashes = (Crash("engine-draw", 5, 0.0, None, "SIGKILL"), Crash("engine-chat", 6, 60.0, 1, None))
    memory = {"engine-chat": ProcessMemory(100 << 20, 0, 0)}
    return replace(inspect(run), **{"programs": programs, "crashes": crashes, "memory": memory, **changes})


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    engine = run.of_engine("engine-chat")
    warned = EnginePhase(Phase.STARTING, "chat", "a detail", pid=7, warnings=(Notice("no-gpu", "no [GPU]", "get one"),))
    engine.engine_phase.write_text(json.dumps(warned.as_data()))
    engine_reduction.write(EngineReduction({"slots": 2}), engine.engine_reduction)
    engine_variant.write(EngineVariant("zen4", 7), engine.engine_variant)
    residency.write({"engine-embed": EngineResidency(Residency.UNLOADED)}, run.residency)
    failures.write(BROKEN, run.of_engine("engine-draw").engine_failure)
    return run


def test_each_of_several_models_is_shown(run: RunDir) -> None:
    shown = text(several_on(run, health=None, was_ready=True))
    lines = shown.splitlines()
    rows = {line.split()[0]: line.split(None, 2)[1:] for line in lines if not line.startswith("draw failed,")}
    assert rows["chat"] == ["running", "100 MiB anonymous, 0 MiB of mapped files  slots reduced to 2"]
    assert rows["embed"][0] == "unloaded"
    assert "on demand" in rows["embed"][1]
    assert rows["draw"][0] == "failed"
    assert "not required" in rows["draw"][1]
    assert "chat: warning[no-gpu]: no [GPU]; get one" in lines
    assert "CPU variant: zen4" in lines
    assert "draw failed, 1970-01-01T00:00:00Z:" in lines
    assert "fix: fetch it again" in shown
    assert "last failure" not in shown  # the appliance goes on


def test_what_health_sees_of_each_model_counts(run: RunDir) -> None:
    models = [
        {"name": name, "phase": phase}
        for name, phase in (("chat", "serving"), ("embed", "unloaded"), ("draw", "failed"))
    ]
    found = several_on(run, health={**READY, "model": "chat", "models": models})
    assert [found.state_of(one) for one in found.models] == ["serving", "unloaded", "failed"]
    assert (found.state, found.exit_code) == ("ready", 0)
    starting = several_on(run, health={**READY, "state": "starting", "model": "chat", "models": models})
    assert "a detail" in text(starting)


def test_the_json_of_several_models(run: RunDir) -> None:
    shown = json.loads(json.dumps(as_dict(several_on(run, health=None))))
    chat, embed, draw = shown["models"]
    assert {
        name: chat[name] for name in ("name", "program", "state", "residency", "restarts", "last_end", "reduced")
    } == {
        "name": "chat",
        "program": "engine-chat",
        "state": "running",
        "residency": None,
        "restarts": 1,
        "last_end": "exit status 1 at 1970-01-01T00:01:00Z",
        "reduced": {"slots": 2},
    }
    assert chat["memory"]["anonymous_bytes"] == 100 << 20
    assert [warning["code"] for warning in chat["warnings"]] == ["no-gpu"]
    assert (chat["engine"]["detail"], chat["cpu_variant"]["name"], chat["failure"]) == ("a detail", "zen4", None)
    assert (embed["state"], embed["residency"], embed["on_demand"], embed["required"]) == (
        "unloaded",
        "unloaded",
        True,
        False,
    )
    assert (draw["state"], draw["required"]) == ("failed", False)
    assert (draw["failure"]["cause"], draw["failure"]["fix"]) == ("a bad file", "fetch it again")
    assert draw["last_end"].startswith("SIGKILL")
    assert shown["engine"]["model"] == "chat"
    assert shown["failure"] is None


def test_several_models_of_an_appliance_that_is_gone(run: RunDir) -> None:
    gone = several_on(run, programs=(), health=None, memory={})
    assert [gone.state_of(one) for one in gone.models] == ["stopped", "stopped", "failed"]
    assert as_dict(gone)["models"][0]["warnings"] == []


def test_damaged_files_of_engines_are_no_defect(run: RunDir) -> None:
    for name in ("chat", "embed", "draw"):
        engine = run.of_engine(f"engine-{name}")
        for path in (engine.engine_phase, engine.engine_failure, engine.engine_reduction, engine.engine_variant):
            path.write_bytes(b'{"\xff')
    run.residency.write_text('{"engine-chat": {"state": "asleep"}}')
    shown = as_dict(several_on(run, health={**READY, "models": [1]}))
    assert [one["state"] for one in shown["models"]] == ["running", "stopped", "fatal"]
    assert text(several_on(run, health={**READY, "models": None}))


def test_one_model_has_no_list_of_models() -> None:
    assert as_dict(facts())["models"] == []
    assert "model " not in text(facts())
