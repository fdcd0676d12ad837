"""The run directory of one `up`: created private, locked, cleared of an earlier run's files, cleaned up at the end."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.errors import ExitCode, LaunchError
from llama_gguf.logs import fields
from llama_gguf.runtime.supervisord import CWD_LINK, LOGS_LINK
from llama_gguf.settings import Locations, RunDir
from llama_gguf.settings.locations import ENGINE_PROGRAM, MAX_RUN_DIR_BYTES
from llama_gguf.timestamps import utc_file_stamp

if TYPE_CHECKING:
    from llama_gguf.settings.sections.logging import Logging

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs: files here are never written to a disk
_MEMORY_TYPES = {"tmpfs", "ramfs"}
_MIN_AGE_SECONDS = 86_400.0


def prepare(run: RunDir) -> int:
    """Create the directory (0700), lock it and clear it; return the file descriptor that holds the lock.

    Raises LaunchError where it is a link or another user's, its path is too long for sockets, or another appliance
    uses it.
    """
    root = run.root
    if len(os.fsencode(root)) > MAX_RUN_DIR_BYTES:
        raise LaunchError(
            f"{root}: the path is too long for the unix sockets in this directory",
            hint=f"set paths.run_dir to a directory of at most {MAX_RUN_DIR_BYTES} bytes",
            exit_code=ExitCode.CONFIG,
        )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
        _check_private(root)
        descriptor = _lock(run)
    except OSError as error:
        raise LaunchError(
            f"{root}: cannot be used as run directory: {error.strerror or error}",
            hint="set paths.run_dir to a directory that this user can create",
            exit_code=ExitCode.CONFIG,
        ) from error
    _clear(run)
    for name in (run.failure, run.supervisord_log):
        name.unlink(missing_ok=True)
    return descriptor


def _check_private(root: Path) -> None:
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else f"owned by uid {status.st_uid}"
        raise LaunchError(
            f"{root}: cannot be used as run directory: it is {kind}",
            hint="remove it, or set paths.run_dir to a path whose parent this user can write",
            exit_code=ExitCode.CONFIG,
        )
    if stat.S_IMODE(status.st_mode) != 0o700:
        root.chmod(0o700)


def _lock(run: RunDir) -> int:
    descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise LaunchError(
            f"{run.root}: another appliance runs here, or is still stopping (`llama-gguf up` has pid {holder})",
            hint="stop it first, or set another paths.run_dir and other ports for this one",
            exit_code=ExitCode.TEMPORARY,
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _clear(run: RunDir) -> None:
    for key in run.root.glob(f"{ENGINE_PROGRAM}*.key"):
        remove_engine_key(run.of_engine(key.stem))
    leftovers = (
        *run.of_all_engines(),
        run.supervisord_socket,
        run.supervisord_pid,
        run.supervisord_ini,
        run.residency,
        run.draining,
        run.ready,
        run.crashes,
    )
    for path in leftovers:
        path.unlink(missing_ok=True)


def clean_up(run: RunDir) -> None:
    """Remove everything but the logs and the failure, once all programs have stopped."""
    _clear(run)
    run.snapshot.unlink(missing_ok=True)
    (run.root / CWD_LINK).unlink(missing_ok=True)


def write_engine_key(run: RunDir, memory: Path = SHARED_MEMORY, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Write a new random key, 0600, to a file system in memory where possible, otherwise to the run directory."""
    if filesystem_type(mounts.read_text(), run.root.resolve()) not in _MEMORY_TYPES:
        file = memory / f"llama-gguf-{os.geteuid()}-{secrets.token_hex(8)}.key"
        try:
            _write_private(file, secrets.token_urlsafe(32) + "\n")
        except OSError as error:
            log.warning("the engine's key is on disk: no tmpfs is available", extra=fields(reason=error.strerror))
        else:
            run.engine_key.symlink_to(file)
            return
    _write_private(run.engine_key, secrets.token_urlsafe(32) + "\n")


def remove_engine_key(run: RunDir, memory: Path = SHARED_MEMORY) -> None:
    """Remove the key, and its target where it is our link to a file in memory."""
    if run.engine_key.is_symlink():
        target = run.engine_key.readlink()
        if target.parent == memory and target.name.startswith(f"llama-gguf-{os.geteuid()}-"):
            target.unlink(missing_ok=True)
    run.engine_key.unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def filesystem_type(mountinfo: str, path: Path) -> str:
    """Return the type of the file system that `path` (absolute, without links) is on; "" where unknown."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if not right:
            continue
        point = _unescape(left.split()[4])
        inside = point == "/" or str(path) == point or str(path).startswith(point + "/")
        if inside and len(point) >= len(best):  # a later mount on the same point hides the earlier one
            best, kind = point, right.split()[0]
    return kind


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def link_logs(
    locations: Locations, settings: Logging, programs: tuple[str, ...], *, clock: Callable[[], float] = time.time
) -> Path:
    """Create the directory for this start's log files and the links to it; return the directory.

    LOGS_DIR/WORKER_TYPE/NAME-UTC_TIME/PROGRAM.log, with `latest` beside it. Falls back to the run directory, with a
    warning, where the logs directory cannot be written.
    """
    run = locations.run
    parent = locations.logs_dir / settings.worker_type
    try:
        directory = _create_log_dir(parent, f"{settings.name}-{utc_file_stamp(clock())}")
        _symlink(parent / "latest", Path(directory.name))
        _prune(parent, settings, clock())
    except OSError as error:
        shutil.rmtree(
            run.root / "log-files", ignore_errors=True
        )  # an earlier start's, which must not be copied to stdout again
        directory = _create_log_dir(run.root / "log-files", "current")
        log.warning(
            "logs directory cannot be written; logs go to the run directory",
            extra=fields(logs_dir=str(parent), reason=error.strerror or str(error), fallback=str(directory)),
        )
    _symlink(run.root / LOGS_LINK, directory)
    for program in programs:
        _symlink(run.log(program), Path(LOGS_LINK) / f"{program}.log")
    return directory


def _create_log_dir(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    directory = parent / name
    directory.mkdir(exist_ok=True)
    (directory / ".writable").touch()  # an existing directory can be read-only
    (directory / ".writable").unlink()
    return directory


def _symlink(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target`, atomically."""
    temporary = link.with_name(f".{link.name}.new-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _prune(parent: Path, settings: Logging, now: float) -> None:
    """Remove log directories of earlier starts beyond `backups`, except those modified in the last day.

    Other workers can log to the same shared volume: a directory still in use has been modified since.
    """
    earlier = sorted(
        (path for path in parent.glob(f"{settings.name}-*Z") if path.is_dir() and not path.is_symlink()), reverse=True
    )
    for path in earlier[settings.backups + 1 :]:
        newest = max((file.stat().st_mtime for file in path.iterdir()), default=path.stat().st_mtime)
        if now - newest > _MIN_AGE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def link_cwd(run: RunDir) -> None:
    """Link the working directory of `up`, in which the programs run, so that they resolve relative paths alike."""
    try:
        target = Path.cwd()
    except FileNotFoundError:  # deleted since
        target = Path("/")
    _symlink(run.root / CWD_LINK, target)
