from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_gguf.errors import LaunchError
from llama_gguf.runtime import process
from llama_gguf.runtime.process import ProcessStat, parse_stat


def test_parse_stat() -> None:
    assert parse_stat("42 (a) S (b) 3) R 7 8 9 0 -1 4194304") == ProcessStat(42, "R", 7, 9)


def test_all_processes_leaves_out_zombies_and_what_ends_meanwhile(tmp_path: Path) -> None:
    for pid, text in (("1", "1 (init) S 0 1 1 0"), ("2", "2 (z) Z 1 1 1 0"), ("self", ""), ("3", None)):
        (tmp_path / pid).mkdir()
        if text is not None:
            (tmp_path / pid / "stat").write_text(text)
    assert [found.pid for found in process.all_processes(tmp_path)] == [1]


def test_a_session_is_found_and_killed() -> None:
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); print('x', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        members = process.session_members(child.pid)
        assert len(members) == 2
        assert child.pid in members
        process.kill_all([*members, 2**22 - 1])
        child.wait(60)
    deadline = time.monotonic() + 5
    while process.session_members(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.session_members(child.pid) == []


def test_spawned_in_a_session_of_its_own_with_what_it_needs(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    script = f"import os; os.write({writer}, (os.getcwd() + os.environ['X']).encode())"
    child = process.spawn([sys.executable, "-c", script], cwd=tmp_path, env={"X": "y"}, keep_fds=[writer])
    assert os.getsid(child.pid) == child.pid
    assert child.wait(60) == 0
    assert os.read(reader, 1000).decode() == f"{tmp_path}y"
    os.close(reader)
    os.close(writer)


def test_what_cannot_be_spawned_is_told(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no-such-program cannot be started: No such file"):
        process.spawn(["no-such-program"], cwd=tmp_path, env={}, keep_fds=[])


SPAWNER = """
import os, sys, time
from pathlib import Path
from llama_gguf.runtime import process
child = process.spawn([sys.executable, "-c", "import time; time.sleep(60)"], cwd=Path("/"), env={}, keep_fds=[])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_it_dies_with_us() -> None:
    with subprocess.Popen([sys.executable, "-c", SPAWNER], stdout=subprocess.PIPE, text=True) as spawner:
        assert spawner.stdout is not None
        pid = int(spawner.stdout.readline())
        assert process.session_members(pid) == [pid]
        spawner.kill()
        spawner.wait(5)
    deadline = time.monotonic() + 5
    while process.session_members(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.session_members(pid) == []


REAPER = """
import os, subprocess, sys, time
from llama_gguf.runtime import process
process.reap_orphans(keep=0)
process.become_subreaper()
middle = subprocess.Popen([sys.executable, "-c",
    "import subprocess; print(subprocess.Popen(['sleep', '0.1']).pid, flush=True)"], stdout=subprocess.PIPE)
orphan = int(middle.stdout.readline())
time.sleep(0.5)
process.reap_orphans(keep=middle.pid)
if os.path.exists(f"/proc/{orphan}"):  # the other one was in front
    assert middle.wait() == 0
    process.reap_orphans(keep=0)
else:
    assert middle.wait() == 0
assert not os.path.exists(f"/proc/{orphan}")
"""


def test_orphans_come_to_us_and_are_reaped() -> None:
    done = subprocess.run([sys.executable, "-c", REAPER], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((1024, 4096), (4096, 4096)),
        ((1024, 1_000_000), (65_536, 1_000_000)),
        ((1024, resource.RLIM_INFINITY), (65_536, resource.RLIM_INFINITY)),
        ((100_000, 1_000_000), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_open_files(limits: tuple[int, int], expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _which, pair: made.append(pair))
    process.raise_open_files_limit()
    assert made == ([expected] if expected else [])


def test_a_blocked_signal_does_not_reach_the_child(tmp_path: Path) -> None:
    """`nohup` and the like hand down ignored signals; supervisord must be stoppable all the same."""
    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        child = process.spawn(["sleep", "60"], cwd=tmp_path, env=os.environ, keep_fds=[])
    finally:
        signal.signal(signal.SIGTERM, old)
    child.terminate()
    assert child.wait(60) == -signal.SIGTERM
