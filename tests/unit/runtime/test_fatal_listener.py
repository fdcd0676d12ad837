from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_gguf.rundir import engine_variant
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir.crashes import CrashFile
from llama_gguf.rundir.engine_variant import EngineVariant, Rejected
from llama_gguf.rundir.exits import ExitStatus, ProcessExit
from llama_gguf.runtime.event_protocol import serve
from llama_gguf.runtime.fatal_listener import FatalListener
from llama_gguf.settings import RunDir
from llama_gguf.settings.sections.supervisor import Supervisor


@dataclass
class Calls:
    made: list[str] = field(default_factory=list)

    def shutdown(self) -> None:
        self.made.append("shutdown")

    def stop_program(self, name: str) -> None:
        self.made.append(f"stop {name}")

    def start_program(self, name: str) -> None:
        self.made.append(f"start {name}")


@dataclass
class Found:
    cause: str = "no memory"
    fix: str = "lower slots"
    permanent: bool = False
    configuration: bool = False


class Scene:
    def __init__(
        self,
        root: Path,
        rules: Supervisor | None = None,
        found: Found | None = None,
        optional: Sequence[str] = (),
        needs_less: Callable[[str, ProcessExit], bool] = lambda _program, _end: False,
    ) -> None:
        self.run = RunDir(root=root)
        self.calls = Calls()
        self.asked: list[tuple[list[str], int | None, str | None]] = []
        self.found = found
        self.gave_up: list[tuple[str, ExitStatus]] = []
        self.listener = FatalListener(
            self.run,
            rules or Supervisor(),
            self.calls,
            self._diagnose,
            gave_up=lambda program, ended: self.gave_up.append((program, ended)),
            optional=optional,
            needs_less=needs_less,
            clock=lambda: 1000.0,
        )

    def _diagnose(self, program: str, tail: Sequence[str], code: int | None, signal: str | None) -> Found | None:
        assert program.startswith("engine")
        self.asked.append((list(tail), code, signal))
        return self.found

    def ended(self, program: str, how: str, pid: int = 0) -> None:
        with self.run.supervisord_log.open("a") as file:
            if pid:
                file.write(f"2026-01-01 00:00:00,000 INFO spawned: '{program}' with pid {pid}\n")
            file.write(f"2026-01-01 00:00:00,000 WARN exited: {program} ({how}; not expected)\n")

    def event(self, name: str, program: str, pid: int = 1) -> None:
        self.listener.handle(name, {"processname": program, "groupname": program, "pid": str(pid)})


def test_a_crash_is_recorded_and_nothing_else(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.ended("gateway", "terminated by SIGKILL")
    scene.event("EXITED", "gateway", 42)
    (crash,) = CrashFile(scene.run.crashes).read()
    assert (crash.program, crash.pid, crash.at, crash.signal) == ("gateway", 42, 1000.0, "SIGKILL")
    assert scene.calls.made == []
    assert scene.asked == []  # the diagnosis knows the engine only


def test_the_engines_failure_is_diagnosed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, found=Found())
    scene.run.log("engine").write_text("loading\nfailed to allocate\n\n")
    scene.ended("engine", "exit status 1")
    scene.event("FATAL", "engine")
    assert scene.asked == [(["loading", "failed to allocate"], 1, None)]
    failure = failures.read(scene.run.failure)
    assert failure is not None
    assert (failure.cause, failure.fix, failure.exit_code, failure.exit_status) == ("no memory", "lower slots", 1, 69)
    assert failure.log_tail == ("loading", "failed to allocate")
    assert scene.calls.made == ["shutdown"]


def test_a_permanent_diagnosis_ends_the_retries(tmp_path: Path) -> None:
    scene = Scene(tmp_path, found=Found(permanent=True))
    scene.ended("engine", "exit status 1")
    scene.event("BACKOFF", "engine")
    failure = failures.read(scene.run.failure)
    assert failure is not None
    assert "a restart cannot help" in failure.summary
    assert failure.exit_status == 69  # whose fault it is, is another question
    assert scene.calls.made == ["shutdown"]


@pytest.mark.parametrize(
    ("found", "how", "status"),
    [
        (Found(permanent=True), "terminated by SIGILL", 69),
        (Found(permanent=True, configuration=True), "exit status 1", 78),
        (Found(permanent=True, configuration=True), "exit status 78", 78),
        (None, "exit status 78", 78),
        (None, "exit status 1", 69),
        (Found(), "exit status 69", 69),
    ],
)
def test_78_is_for_the_configuration_alone(tmp_path: Path, found: Found | None, how: str, status: int) -> None:
    scene = Scene(tmp_path, found=found)
    scene.ended("engine", how)
    scene.event("FATAL", "engine")
    failure = failures.read(scene.run.failure)
    assert failure is not None
    assert failure.exit_status == status


def test_our_own_words_are_the_cause_elsewhere(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.run.log("gateway").write_text("error: port 8000 is in use\nhint: set gateway.port\n")
    scene.ended("gateway", "exit status 78")
    scene.event("BACKOFF", "gateway")
    failure = failures.read(scene.run.failure)
    assert failure is not None
    assert (failure.cause, failure.fix, failure.exit_status) == ("port 8000 is in use", "set gateway.port", 78)


def test_without_exit_on_failure_only_the_program_is_stopped(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Supervisor(exit_on_failure=False))
    scene.ended("gateway", "exit status 1")
    scene.event("FATAL", "gateway")
    assert scene.calls.made == ["stop gateway"]


def test_the_first_failure_stands(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.event("FATAL", "engine")
    first = scene.run.failure.read_bytes()
    scene.event("FATAL", "gateway")
    assert scene.run.failure.read_bytes() == first
    assert scene.calls.made == ["shutdown"]


def test_what_ends_while_draining_is_no_failure(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.run.draining.touch()
    scene.ended("engine", "exit status 78")
    scene.event("EXITED", "engine")
    scene.event("FATAL", "engine")
    assert not scene.run.failure.exists()
    assert not scene.run.crashes.exists()


ZEN4 = EngineVariant("zen4", 7, "z", "cpu", lower=("haswell",))
GONE = Found("uses instructions that the CPU does not have", permanent=True)


def test_an_illegal_instruction_that_heals_is_no_failure_and_does_not_count(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Supervisor(start_retries=0, max_restarts=0), found=GONE)
    engine_variant.write(ZEN4, scene.run.engine_variant)
    scene.ended("engine", "terminated by SIGILL", pid=7)
    scene.event("EXITED", "engine", 7)
    scene.event("BACKOFF", "engine")
    assert scene.calls.made == []
    assert not scene.run.failure.exists()
    assert [crash.mitigated for crash in CrashFile(scene.run.crashes).read()] == [True]
    scene.event("FATAL", "engine")
    assert scene.calls.made == ["start engine"]  # supervisord has given up, we have not
    assert not scene.run.failure.exists()
    scene.event("FATAL", "engine")  # it could not start it at all: nothing new has ended
    assert scene.calls.made == ["start engine", "shutdown"]


def test_a_listener_that_is_late_still_sees_that_it_healed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, found=GONE)
    after = EngineVariant("haswell", 8, "h", "cpu", rejected=(Rejected("zen4", "z", 7),))
    engine_variant.write(after, scene.run.engine_variant)
    scene.ended("engine", "terminated by SIGILL", pid=7)
    scene.event("EXITED", "engine", 7)
    assert not scene.run.failure.exists()


@pytest.mark.parametrize(
    ("record", "program", "how", "pid"),
    [
        (EngineVariant("x64", 7, "x", "cpu", rejected=(Rejected("zen4", "z", 6),)), "engine", "SIGILL", 7),
        (EngineVariant("zen4", 7, "z", "cpu", pinned=True), "engine", "SIGILL", 7),
        (ZEN4, "engine", "SIGILL", 9),  # another process than the one that ran the variant
        (None, "engine", "SIGILL", 7),
    ],
)
def test_one_that_does_not_heal_is_the_failure_it_always_was(
    tmp_path: Path, record: EngineVariant | None, program: str, how: str, pid: int
) -> None:
    scene = Scene(tmp_path, found=GONE)
    if record:
        engine_variant.write(record, scene.run.engine_variant)
    scene.ended(program, f"terminated by {how}", pid=pid)
    scene.event("BACKOFF", program)
    assert scene.calls.made == ["shutdown"]
    assert scene.run.failure.exists()
    assert scene.gave_up == [(program, ExitStatus(None, "SIGILL"))]


def test_other_programs_have_no_variants(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    engine_variant.write(ZEN4, scene.run.engine_variant)
    scene.ended("gateway", "terminated by SIGILL", pid=7)
    scene.event("FATAL", "gateway")
    assert scene.calls.made == ["shutdown"]


def test_what_fails_after_healing_has_all_its_tries(tmp_path: Path) -> None:
    """supervisord has counted the mitigated ends in when it gives up; the second time it has counted only others."""
    scene = Scene(tmp_path, Supervisor(start_retries=1), found=Found())
    after = EngineVariant("haswell", 8, "h", "cpu", lower=("x64",), rejected=(Rejected("zen4", "z", 7),))
    engine_variant.write(after, scene.run.engine_variant)
    scene.ended("engine", "terminated by SIGILL", pid=7)
    scene.ended("engine", "exit status 1", pid=8)
    scene.event("FATAL", "engine")
    assert scene.calls.made == ["start engine"]
    for pid in (9, 10):
        scene.ended("engine", "exit status 1", pid=pid)
    scene.event("FATAL", "engine")
    assert scene.calls.made == ["start engine", "shutdown"]


def test_the_reason_before_a_long_backtrace_is_diagnosed_and_the_end_is_shown(tmp_path: Path) -> None:
    scene = Scene(tmp_path, found=Found(permanent=True))
    frames = [f"#{number}  ggml_abort ()" for number in range(300)]
    scene.run.log("engine").write_text("\n".join(["the reason", *frames]))
    scene.ended("engine", "terminated by SIGABRT", pid=7)
    scene.event("EXITED", "engine", 7)
    assert scene.asked[0][0][0] == "the reason"
    failure = failures.read(scene.run.failure)
    assert failure is not None
    assert len(failure.log_tail) == 40


def test_an_engine_that_will_need_less_is_started_past_every_count(tmp_path: Path) -> None:
    ended: list[int] = []

    def needs_less(program: str, end: ProcessExit) -> bool:
        assert program == "engine"
        ended.append(end.pid)
        return end.pid < 9

    scene = Scene(tmp_path, Supervisor(start_retries=1), found=Found(), needs_less=needs_less)
    for pid in (7, 8):
        scene.ended("engine", "exit status 1", pid=pid)
        scene.event("FATAL", "engine", pid)
    assert scene.calls.made == ["start engine", "start engine"]
    assert not scene.run.failure.exists()
    for pid in (9, 10):  # nothing is left to go without
        scene.ended("engine", "exit status 1", pid=pid)
    scene.event("FATAL", "engine", 10)
    assert scene.calls.made[2:] == ["shutdown"]
    assert scene.run.failure.exists()
    assert set(ended) == {7, 8, 9, 10}


def test_its_own_crash_is_no_failure(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.event("FATAL", "listener")
    assert not scene.run.failure.exists()


def test_an_exit_that_the_log_rotated_away_is_found(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.ended("gateway", "exit status 78")
    scene.run.supervisord_log.rename(tmp_path / "supervisord.log.1")
    scene.run.supervisord_log.write_text("new\n")
    scene.event("BACKOFF", "gateway")
    assert scene.run.failure.exists()


def test_the_protocol(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.ended("gateway", "exit status 1")
    payload = b"processname:gateway groupname:gateway from_state:RUNNING expected:0 pid:9"
    head = f"ver:3.0 server:x serial:1 pool:l poolserial:1 eventname:PROCESS_STATE_EXITED len:{len(payload)}\n"
    out = io.BytesIO()
    serve(io.BytesIO(head.encode() + payload), out, scene.listener.handle)
    assert out.getvalue() == b"READY\nRESULT 2\nOKREADY\n"
    assert [crash.pid for crash in CrashFile(scene.run.crashes).read()] == [9]


def test_an_optional_engine_fails_alone(tmp_path: Path) -> None:
    """The appliance goes on, also when its own rules would end it: only this model is given up."""
    scene = Scene(tmp_path, found=Found(permanent=True), optional=("engine-b",))
    scene.run.ready.touch()
    scene.ended("engine-b", "exit status 1", 7)
    scene.event("EXITED", "engine-b", 7)
    assert scene.calls.made == ["stop engine-b"]
    assert not scene.run.failure.exists()
    found = failures.read(scene.run.of_engine("engine-b").engine_failure)
    assert found is not None
    assert (found.program, found.cause, found.fix) == ("engine-b", "no memory", "lower slots")
    scene.event("FATAL", "engine-b", 7)  # told once
    assert scene.calls.made == ["stop engine-b"]
    scene.ended("engine-a", "exit status 1", 8)
    scene.event("EXITED", "engine-a", 8)
    assert scene.calls.made == ["stop engine-b", "shutdown"]
    assert scene.run.failure.exists()
