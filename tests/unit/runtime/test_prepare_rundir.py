from __future__ import annotations

import functools
import os
import stat
from pathlib import Path

import pytest

from llama_gguf.errors import ExitCode, LaunchError
from llama_gguf.runtime import prepare_rundir
from llama_gguf.settings import Locations, RunDir, locate, parse
from llama_gguf.settings.locations import MAX_RUN_DIR_BYTES, UNIX_SOCKET_PATH_BYTES
from llama_gguf.settings.sections.logging import Logging


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(prepare_rundir, "MAX_RUN_DIR_BYTES", 4096)  # pytest's directories are deep
    return RunDir(root=tmp_path / "below" / "run")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_private_locked_and_cleared(run: RunDir) -> None:
    run.root.mkdir(parents=True)
    run.root.chmod(0o755)
    stale = [run.supervisord_socket, run.engine_socket, run.failure, run.draining, run.ready, run.crashes]
    for path in stale:
        path.touch()
    (run.root / "other").touch()
    descriptor = prepare_rundir.prepare(run)
    assert mode(run.root) == 0o700
    assert not any(path.exists() for path in stale)
    assert (run.root / "other").exists()
    assert run.lock.read_text() == f"{os.getpid()}\n"
    with pytest.raises(LaunchError, match=f"pid {os.getpid()}") as caught:
        prepare_rundir.prepare(run)
    assert caught.value.exit_code == ExitCode.TEMPORARY
    os.close(descriptor)
    os.close(prepare_rundir.prepare(run))


def test_a_link_is_refused(run: RunDir, tmp_path: Path) -> None:
    run.root.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    run.root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LaunchError, match="a symbolic link") as caught:
        prepare_rundir.prepare(run)
    assert caught.value.exit_code == ExitCode.CONFIG


def test_somebody_elses_is_refused(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.root.mkdir(parents=True)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(LaunchError, match=f"owned by uid {uid}"):
        prepare_rundir.prepare(run)


def test_a_file_in_the_way_is_refused(run: RunDir) -> None:
    run.root.parent.mkdir()
    run.root.touch()
    with pytest.raises(LaunchError, match="cannot be used as run directory"):
        prepare_rundir.prepare(run)


def test_a_link_as_lock_is_not_followed(run: RunDir, tmp_path: Path) -> None:
    run.root.mkdir(parents=True)
    run.lock.symlink_to(tmp_path / "victim")
    with pytest.raises(LaunchError, match="cannot be used"):
        prepare_rundir.prepare(run)
    assert not (tmp_path / "victim").exists()


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path / ("x" * 100))
    with pytest.raises(LaunchError, match="too long") as caught:
        prepare_rundir.prepare(run)
    assert caught.value.exit_code == ExitCode.CONFIG
    assert not run.root.exists()


def test_the_longest_socket_has_room_in_the_longest_directory() -> None:
    longest = f"/{RunDir(root=Path('/')).supervisord_socket.name}.4194304"  # Linux' highest pid
    assert MAX_RUN_DIR_BYTES + len(longest) <= UNIX_SOCKET_PATH_BYTES


DISK = "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/run/llama", "tmpfs"),
        ("/runner", "ext4"),
        ("/", "ext4"),
        ("/a b/x", "ramfs"),
        ("/over", "overlay"),
    ],
)
def test_filesystem_type(path: str, expected: str) -> None:
    text = (
        DISK
        + "22 21 0:20 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n"
        + "23 21 0:21 / /a\\040b rw - ramfs none rw\n"
        + "24 21 0:22 / /over rw - tmpfs none rw\n"
        + "25 21 0:23 / /over rw - overlay overlay rw\n"
        + "nonsense\n"
    )
    assert prepare_rundir.filesystem_type(text, Path(path)) == expected


def test_filesystem_type_of_nothing() -> None:
    assert prepare_rundir.filesystem_type("", Path("/x")) == ""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(DISK)
    return path


def test_the_key_is_in_memory_when_the_run_dir_is_on_disk(run: RunDir, tmp_path: Path, mounts: Path) -> None:
    memory = tmp_path / "shm"
    memory.mkdir()
    run.root.mkdir(parents=True)
    prepare_rundir.write_engine_key(run, memory, mounts)
    (place,) = memory.iterdir()
    assert run.engine_key.readlink() == place
    assert mode(place) == 0o600
    first = run.engine_key.read_text()
    assert len(first.strip()) == 43
    prepare_rundir.remove_engine_key(run, memory)
    assert list(memory.iterdir()) == []
    assert not os.path.lexists(run.engine_key)
    prepare_rundir.write_engine_key(run, memory, mounts)
    assert run.engine_key.read_text() != first


def test_the_key_is_in_the_run_dir_when_that_is_memory_or_there_is_none(
    run: RunDir, tmp_path: Path, mounts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.root.mkdir(parents=True)
    prepare_rundir.write_engine_key(run, tmp_path / "absent", mounts)
    assert not run.engine_key.is_symlink()
    assert mode(run.engine_key) == 0o600
    assert "on disk" in caplog.text
    prepare_rundir.remove_engine_key(run)
    mounts.write_text("1 1 0:1 / / rw - tmpfs none rw\n")
    caplog.clear()
    prepare_rundir.write_engine_key(run, tmp_path / "absent", mounts)
    assert not run.engine_key.is_symlink()
    assert caplog.text == ""


def test_a_strange_link_is_removed_but_not_what_it_points_at(run: RunDir, tmp_path: Path) -> None:
    run.root.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.touch()
    run.engine_key.symlink_to(victim)
    prepare_rundir.remove_engine_key(run, tmp_path)
    assert victim.exists()
    assert not os.path.lexists(run.engine_key)


def locations(run: RunDir, tmp_path: Path) -> Locations:
    tree = {"model": {"path": "/m"}, "paths": {"run_dir": str(run.root), "data_dir": str(tmp_path / "data")}}
    return locate(parse(tree), {})


def test_logs_are_linked_newest_last_by_name(run: RunDir, tmp_path: Path) -> None:
    run.root.mkdir(parents=True)
    where = locations(run, tmp_path)
    settings = Logging(worker_type="gpu", name="box")
    first = prepare_rundir.link_logs(where, settings, ("engine",), clock=lambda: 1_000_000.25)
    second = prepare_rundir.link_logs(where, settings, ("engine",), clock=lambda: 1_000_060.0)
    assert first.name == "box-19700112T134640.250000Z"
    assert sorted([second.name, first.name]) == [first.name, second.name]
    assert (where.logs_dir / "gpu/latest").resolve() == second
    (second / "engine.log").write_text("x")
    assert run.log("engine").read_text() == "x"


def test_old_logs_are_removed_but_not_what_others_still_write(run: RunDir, tmp_path: Path) -> None:
    run.root.mkdir(parents=True)
    where = locations(run, tmp_path)
    parent = where.logs_dir / "default"
    day = 86_400.0
    now = 100 * day
    made = []
    for age in (10, 9, 8, 7):
        then = now - age * day
        path = prepare_rundir.link_logs(where, Logging(backups=9), (), clock=functools.partial(float, then))
        (path / "a.log").touch()
        os.utime(path / "a.log", (then, then))
        made.append(path)
    os.utime(made[1] / "a.log", (now - 60,) * 2)  # a worker beside us is still at it
    (parent / "other-1Z").mkdir()
    newest = prepare_rundir.link_logs(where, Logging(backups=1), (), clock=lambda: now)
    left = {path.name for path in parent.iterdir()}
    assert left == {newest.name, made[1].name, made[3].name, "other-1Z", "latest"}


def test_logs_fall_back_to_the_run_dir(run: RunDir, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run.root.mkdir(parents=True)
    (tmp_path / "data").touch()
    directory = prepare_rundir.link_logs(locations(run, tmp_path), Logging(), ("engine",))
    assert directory == run.root / "log-files/current"
    assert "cannot be written" in caplog.text
    (directory / "engine.log").write_text("x")
    assert run.log("engine").read_text() == "x"


def test_cwd_is_linked_even_when_it_is_gone(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.root.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    prepare_rundir.link_cwd(run)
    assert (run.root / "cwd").readlink() == tmp_path
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    prepare_rundir.link_cwd(run)
    assert (run.root / "cwd").readlink() == Path("/")


def test_tidy_keeps_what_explains(run: RunDir) -> None:
    run.root.mkdir(parents=True)
    for path in (run.snapshot, run.engine_key, run.failure, run.supervisord_log, run.lock, run.supervisord_ini):
        path.touch()
    prepare_rundir.clean_up(run)
    assert {path.name for path in run.root.iterdir()} == {"failure.json", "supervisord.log", "up.lock"}
