"""`launch` with a real supervisord and stand-in programs: start, stop, failure, and what is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gguf.errors import LaunchError
from llama_gguf.rundir import failure as failures
from llama_gguf.runtime.launch import program_env
from llama_gguf.settings import RunDir
from support.launching import launched, listener, standin

pytestmark = pytest.mark.slow


def test_starts_serves_and_stops_clean(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a", "--say=hello_there")]) as up:
        up.wait_started("a")
        up.wait_for(lambda: "hello there" in up.stdout, "the program's output on our stdout")
        run = up.run
        assert stat.S_IMODE(run.root.stat().st_mode) == 0o700
        assert stat.S_IMODE(run.supervisord_socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(run.engine_key.stat().st_mode) == 0o600
        assert stat.S_IMODE(run.snapshot.stat().st_mode) == 0o600
        assert len(run.engine_key.read_text().strip()) >= 40
        key = run.engine_key.resolve()
        assert run.log("a").read_text() == "hello there\n"
        latest = tmp_path / "data/logs/default/latest"
        assert (latest / "a.log").read_text() == "hello there\n"
        assert re.fullmatch(r"llama-gguf-\d{8}T\d{6}\.\d{6}Z", latest.resolve().name)

        assert up.stop() == 0

        assert up.survivors() == []
        assert not key.exists()
        left = {path.name for path in run.root.iterdir()}
        assert left == {"up.lock", "supervisord.log", "logs", "a.log"}
        assert up.stderr == ""


@pytest.fixture
def strange_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="a b;%(x)s ;#"))
    yield path
    shutil.rmtree(path)


def test_a_run_dir_with_a_strange_name(tmp_path: Path, strange_dir: Path) -> None:
    """supervisord cuts at ` ;` and expands `%`; a path is user text."""
    with launched(tmp_path, [standin("a")], run_dir=strange_dir / "run") as up:
        up.wait_started("a")
        assert up.rpc.state() == "RUNNING"
        assert up.run.log("a").exists()
        assert up.stop() == 0
        assert up.survivors() == []


def test_programs_run_where_up_was_started(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a")]) as up:
        up.wait_started("a")
        assert Path(f"/proc/{up.pids('a')[0]}/cwd").readlink() == Path.cwd()


def test_stops_in_descending_priority_and_waits_for_each(tmp_path: Path) -> None:
    programs = [
        standin("health", priority=10),
        standin("gateway", "--linger=0.7", priority=30),
        standin("engine", priority=20),
    ]
    with launched(tmp_path, programs) as up:
        up.wait_started("health", "gateway", "engine")
        assert up.stop() == 0
        ends = [line for line in up.marks() if "start" not in line]
    assert ends == ["gateway term", "gateway end", "engine term", "engine end", "health term", "health end"]


def test_draining_is_visible_before_anything_stops(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a", "--linger=0.5")]) as up:
        up.wait_started("a")
        up.process.send_signal(signal.SIGTERM)
        up.wait_for(lambda: "a term" in up.marks(), "the stop signal")
        assert up.run.draining.exists()
        assert up.process.wait(60) == 0
        assert not up.run.draining.exists()


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a", "--linger=120", stop_seconds=130)]) as up:
        up.wait_started("a")
        up.process.send_signal(signal.SIGTERM)
        up.wait_for(lambda: "a term" in up.marks(), "the stop signal")
        began = time.monotonic()
        assert up.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 100
        assert up.survivors() == []


def test_a_program_that_ignores_the_stop_is_killed_in_time(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a", "--deaf", stop_seconds=1)]) as up:
        up.wait_started("a")
        began = time.monotonic()
        assert up.stop() == 0
        assert time.monotonic() - began > 0.9
        assert up.survivors() == []


def test_sighup_goes_to_the_gateway(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("gateway"), standin("a")]) as up:
        up.wait_started("gateway", "a")
        up.process.send_signal(signal.SIGHUP)
        up.wait_for(lambda: "gateway hup" in up.marks(), "the signal")
        assert up.stop() == 0
        assert "a hup" not in up.marks()


def test_kill_9_of_a_program_brings_it_back(tmp_path: Path) -> None:
    with launched(tmp_path, [listener(), standin("a"), standin("b")]) as up:
        up.wait_started("a", "b", "listener")
        time.sleep(1.2)  # until supervisord counts it as running
        os.kill(up.pids("a")[0], signal.SIGKILL)
        up.wait_for(lambda: len(up.pids("a")) == 2, "a second life")
        assert len(up.pids("b")) == 1
        up.wait_for(up.run.crashes.exists, "the listener's record")
        (crash,) = json.loads(up.run.crashes.read_text())
        assert (crash["program"], crash["signal"], crash["code"]) == ("a", "SIGKILL", None)
        assert up.stop() == 0


def test_a_program_that_cannot_start_ends_all_with_the_reason(tmp_path: Path) -> None:
    # A long first second: on a busy machine Python alone may take more than one, and then it counts as having started.
    program = standin("a", "--say=error=_no_such_thing", "--exit=3", start_retries=1, start_seconds=60)
    others = [listener(), standin("b", stop_seconds=60)]
    with launched(tmp_path, [*others, program], settings={"supervisor": {"start_retries": 1}}) as up:
        up.wait_started("a", "b")
        assert up.process.wait(60) == 69
        assert up.survivors() == []
    assert up.stderr.startswith("llama-gguf: a cannot be started: exit status 3, 2 times in a row\n")
    assert "cause: no such thing" in up.stderr
    assert "b end" in up.marks()


def test_exit_status_78_ends_all_at_once(tmp_path: Path) -> None:
    program = standin("a", "--say=error=_bad_model", "--exit=78", start_retries=5)
    with launched(tmp_path, [listener(), program]) as up:
        assert up.process.wait(60) == 78
        failure = failures.read(up.run.failure)
        assert failure is not None
        assert (failure.program, failure.exit_code, failure.cause) == ("a", 78, "bad model")
        assert len(up.pids("a")) < 5  # of the six lives it would have; a second may have begun before the verdict
    assert "a restart cannot help" in up.stderr


def test_a_crash_loop_is_broken(tmp_path: Path) -> None:
    """supervisord alone restarts for ever what lives longer than its first second."""
    rules = {"supervisor": {"max_restarts": 1, "restart_window_seconds": 60.0}}
    program = standin("a", "--exit=0", "--after=1.2")
    with launched(tmp_path, [listener(), program], settings=rules) as up:
        assert up.process.wait(60) == 69
        assert len(up.pids("a")) in {2, 3}  # the third may have begun before the verdict
    assert "a keeps crashing: 2 times in 60 s, last exit status 0" in up.stderr


def test_without_exit_on_failure_the_others_stay(tmp_path: Path) -> None:
    rules = {"supervisor": {"start_retries": 0, "exit_on_failure": False}}
    with launched(tmp_path, [listener(), standin("a", "--exit=78"), standin("health")], settings=rules) as up:
        up.wait_for(up.run.failure.exists, "the failure")
        up.wait_for(lambda: "a refused to start" in up.stderr, "the reason on stderr")

        def states() -> dict[str, str]:
            return {info.name: info.state for info in up.rpc.programs()}

        up.wait_for(lambda: states()["a"] in {"STOPPED", "FATAL"}, "its end for good")
        lives = len(up.pids("a"))  # a second may have begun before the verdict
        time.sleep(1.5)
        assert len(up.pids("a")) == lives
        assert states()["health"] == "RUNNING"
        assert up.stop() == 78


def test_the_listener_may_be_killed(tmp_path: Path) -> None:
    with launched(tmp_path, [listener(), standin("a")]) as up:
        up.wait_started("listener", "a")
        os.kill(up.pids("listener")[0], signal.SIGKILL)
        up.wait_for(lambda: len(up.pids("listener")) == 2, "a new listener")
        time.sleep(1.2)
        os.kill(up.pids("a")[0], signal.SIGKILL)
        up.wait_for(lambda: up.run.crashes.exists() and '"a"' in up.run.crashes.read_text(), "the record")
        assert up.stop() == 0


def test_up_steps_in_when_the_listener_cannot_start(tmp_path: Path) -> None:
    dead = standin("listener", "--exit=1", start_retries=0, listener=True)
    with launched(tmp_path, [dead, standin("a")]) as up:
        up.wait_started("a")
        assert up.process.wait(60) == 69
    assert "listener cannot be started" in up.stderr


def test_kill_9_of_supervisord_leaves_nothing_and_is_told(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a"), standin("b", "--deaf")]) as up:
        up.wait_started("a", "b")
        os.kill(up.supervisord_pid, signal.SIGKILL)
        assert up.process.wait(60) == 69
        assert up.survivors() == []
    assert "supervisord exited unexpectedly (terminated by SIGKILL)" in up.stderr


def test_a_supervisord_that_hangs_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a", stop_seconds=1)]) as up:
        up.wait_started("a")
        os.kill(up.supervisord_pid, signal.SIGSTOP)
        assert up.stop() == 0
        assert up.survivors() == []
    assert "stop deadline exceeded" in up.stdout
    assert "supervisord is stopped with SIGTERM instead" in up.stdout


def test_kill_9_of_up_stops_everything(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a"), standin("b")]) as up:
        up.wait_started("a", "b")
        up.process.kill()
        up.process.wait(60)
        up.wait_for(lambda: not up.survivors(), "the end of all programs", timeout=10)
        assert "a end" in up.marks()  # stopped, not killed
        key = up.run.engine_key.readlink() if up.run.engine_key.is_symlink() else up.run.engine_key
        with launched(tmp_path, [standin("a")], run_dir=up.run.root) as again:
            again.wait_for(lambda: len(again.pids("a")) == 2, "a start over the leftovers")
            assert again.stop() == 0
        assert not key.exists()


def test_orphans_are_reaped_and_killed(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a", "--orphan")]) as up:
        up.wait_started("a")
        up.wait_for(lambda: len(up.survivors()) == 3, "supervisord, the program and its orphan")
        assert up.stop() == 0
        assert up.survivors() == []


def test_a_second_up_on_the_same_run_dir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with launched(tmp_path, [standin("a")]) as up:
        up.wait_started("a")
        with launched(tmp_path / "second", [standin("a")], run_dir=up.run.root) as second:
            assert second.process.wait(60) != 0
            assert "another appliance runs here" in second.stderr
            assert f"pid {up.process.pid}" in second.stderr
        assert up.rpc.state() == "RUNNING"
        assert up.stop() == 0


def test_stop_before_supervisord_listens(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a")]) as up:
        up.wait_for(up.run.supervisord_ini.exists, "the ini")
        assert up.stop() == 0
        assert not up.run.supervisord_ini.exists()


def test_every_line_comes_through_rotation(tmp_path: Path) -> None:
    settings = {"logging": {"max_bytes": 65_536, "backups": 9}}
    with launched(tmp_path, [standin("a", "--lines=3000")], settings=settings) as up:
        up.wait_for(lambda: "line 2999" in up.stdout, "the last line")
        assert up.stop() == 0
    numbers = [int(line.split()[1]) for line in up.stdout.splitlines() if line.startswith("line ")]
    assert numbers == list(range(3000))
    assert (tmp_path / "data/logs/default/latest/a.log.1").exists()


def test_json_logs_stay_json(tmp_path: Path) -> None:
    with launched(tmp_path, [standin("a", "--say=plain_words")], settings={"logging": {"format": "json"}}) as up:
        up.wait_for(lambda: "plain words" in up.stdout, "the line")
        assert up.stop() == 0
    lines = [json.loads(line) for line in up.stdout.splitlines()]
    assert ("a", "plain words") in [(line["program"], line["event"]) for line in lines]


def test_logs_go_to_the_run_dir_when_they_cannot_go_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/logs").write_text("in the way")
    with launched(tmp_path, [standin("a", "--say=hello")]) as up:
        up.wait_for(lambda: "hello" in up.stdout, "the line")
        assert (up.run.root / "log-files/current/a.log").read_text() == "hello\n"
        assert up.stop() == 0
    assert "logs directory cannot be written" in up.stdout


def test_hold_shows_the_environment_masked_until_a_signal(tmp_path: Path) -> None:
    settings = {"supervisor": {"start_retries": 0, "hold_seconds": 60.0}}
    env = {"HF_TOKEN": "hf_abcdefghijklmnop", "DB": "Server=h;Pwd=hunter2", "RUNPOD_POD_ID": "here"}
    with launched(tmp_path, [listener(), standin("a", "--exit=78")], settings=settings, env=env) as up:
        up.wait_for(lambda: "RUNPOD_POD_ID=here" in up.stderr, "the environment")
        assert up.process.poll() is None
        assert "  DB=***\n" in up.stderr
        assert "hf_abc" not in up.stderr
        assert "hunter2" not in up.stderr
        assert up.stop() == 78


def test_a_python_below_a_colon_is_refused() -> None:
    with pytest.raises(LaunchError, match="cannot be used"):
        program_env({}, RunDir(root=Path("/r")), "/a:b/bin/python", [])


def test_program_env_puts_our_python_first() -> None:
    env = program_env({"PATH": "/usr/bin", "TZ": "UTC", "X": "1"}, RunDir(root=Path("/r")), "/v/bin/python", [])
    assert env == {"PATH": "/v/bin:/usr/bin", "TZ": "UTC", "LLAMA_GGUF_RUN_DIR": "/r"}


def test_a_terminal_gets_one_row_a_line_and_the_reason_last(tmp_path: Path) -> None:
    failing = standin("engine", "--log", "--lines=30", "--say=error=_bad_model", "--exit=78", "--after=0.5")
    with launched(tmp_path, [listener(), failing, standin("b", "--log", "--say=hello")], columns=100) as up:
        assert up.process.wait(20) == 78
    rows = up.stdout.splitlines()
    assert [row for row in rows if " | INFO | engine | " in row] == [
        "2026-01-01T00:00:00.000Z | INFO | engine | a fact"
    ]
    assert any(row.endswith("hint=the end") for row in rows)  # a warning is whole
    assert "hello" in rows  # what is not llama-server's passes
    start = next(number for number, row in enumerate(rows) if row.startswith("llama-gguf: engine refused to start"))
    assert not any(row.startswith("line ") for row in rows[:start])
    told = rows[start:]
    assert len(told) <= 24
    assert told[1] == "  cause: bad model"
    assert [row.split()[1] for row in told if row.startswith("    line ")] == [str(number) for number in range(18, 30)]
    assert max(map(len, told)) <= 100
    assert sum("line 29 " in row for row in rows) == 1
    assert told[-1].startswith("    line 29 ")  # nothing comes after it


def test_a_terminal_is_told_at_once_where_the_rest_goes_on(tmp_path: Path) -> None:
    rules = {"supervisor": {"start_retries": 0, "exit_on_failure": False}}
    programs = [listener(), standin("a", "--exit=78"), standin("health")]
    with launched(tmp_path, programs, settings=rules, columns=100) as up:
        up.wait_for(lambda: "llama-gguf: a refused to start" in up.stdout, "the reason on the terminal")
        assert up.process.poll() is None
        assert up.stop() == 78


def test_debug_lines_and_json_come_whole_to_a_terminal(tmp_path: Path) -> None:
    for logging in ({"level": "debug"}, {"format": "json"}):
        with launched(
            tmp_path, [standin("engine", "--log", "--lines=3")], settings={"logging": logging}, columns=60
        ) as up:
            up.wait_for(lambda: "line 2" in up.stdout, "the engine's lines")
            assert up.stop() == 0
        assert "x" * 200 in up.stdout
