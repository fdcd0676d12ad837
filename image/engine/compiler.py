"""Compile the engine's wheel: the source by hash, our CMake arguments and nothing of the user's, progress as it goes.

Source and build lie in the same folder each time, so that ccache, which llama.cpp uses where it is installed, finds
what it has compiled before.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from image.engine import progress, recipe

_BYTES_PER_JOB = 1_500_000_000  # what the fattest translation unit takes, with some room
_PACKAGE = "llama-cpp-python"


class BuildError(Exception):
    """The engine could not be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to compile: CMake arguments, flags that leave instructions out, pins of the build's own packages."""

    title: str
    cmake: tuple[str, ...]
    compiler_flags: tuple[str, ...]
    constraints: tuple[str, ...]


def job_count() -> int:
    """Return how many compilers fit this machine's processors and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _BYTES_PER_JOB))


def check_compiler(env: Mapping[str, str]) -> None:
    """Raise BuildError when there is no C++ compiler; CMake and Ninja come from PyPI when the system has none."""
    for variable, program in (("CC", "cc"), ("CXX", "c++")):
        name = (env.get(variable) or program).split()[0]
        if shutil.which(name) is None:
            raise BuildError(
                f"no {'C++' if variable == 'CXX' else 'C'} compiler ({name}) to build llama-server with; "
                "on Debian or Ubuntu: sudo apt-get install build-essential"
            )


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, waiting (and saying so) while another builder has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is at the same; waiting for it ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_with_progress(command: list[str], env: Mapping[str, str], log: Path, title: str) -> int:
    """Run `command` with its output in `log`, showing the steps it tells; stop it whole when we are stopped."""
    with (
        log.open("ab") as sink,
        progress.reporter(title) as report,
        subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as child,
        selectors.DefaultSelector() as selector,
    ):
        output = child.stdout
        if output is None:
            raise BuildError("the build's output was not captured")
        selector.register(output, selectors.EVENT_READ)
        rest = b""
        try:
            while True:
                if selector.select(timeout=1.0):
                    chunk = os.read(output.fileno(), 65_536)
                    if not chunk:
                        return child.wait()
                    sink.write(chunk)
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if step := progress.parse_step(line[:200].decode("utf-8", "replace")):
                            report.step(*step)
                report.tick()
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            raise


def pip_has_build_constraints() -> bool:
    """Return whether this Python's pip takes constraints for build environments apart."""
    major, minor = metadata.version("pip").split(".")[:2]
    return (int(major), int(minor)) >= (25, 3)


def build_environment(order: Order, scratch: Path) -> dict[str, str]:
    """Return the environment for pip: our arguments and flags, and nothing the user's own would add to them.

    Writes into `scratch` what they refer to, because the path of our own tree may hold blanks.
    """
    constraints = scratch / "constraints.txt"
    constraints.write_text("\n".join(order.constraints) + "\n", encoding="utf-8")
    patches = Path(shutil.copy(recipe.PATCHES_FILE, scratch))
    flags = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SKBUILD_", "CMAKE_")) and name not in flags
    }
    arguments = (*order.cmake, f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={patches}")
    if any(" " in argument for argument in arguments):
        raise BuildError("a CMake argument holds a blank, which CMAKE_ARGS cannot carry; use a cache path without one")
    env["CMAKE_ARGS"] = " ".join(arguments)
    env["CMAKE_BUILD_PARALLEL_LEVEL"] = str(job_count())
    if order.compiler_flags:
        env["CFLAGS"] = env["CXXFLAGS"] = " ".join(order.compiler_flags)
    # The variable's name changed with pip 25.3; each pip ignores the other's.
    env["PIP_BUILD_CONSTRAINT" if pip_has_build_constraints() else "PIP_CONSTRAINT"] = str(constraints)
    return env


def fetch_source(sources: Path, env: Mapping[str, str], log: Path) -> Path:
    """Return the source archive that image/engine/requirements.lock pins, fetched by pip unless it is in `sources`."""
    lock = recipe.ENGINE_LOCK.read_text(encoding="utf-8")
    hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))
    name = f"{_PACKAGE.replace('-', '_')}-{recipe.engine_version(lock)}.tar.gz"
    archive = sources / name
    with locked(sources / f"{name}.lock"):
        if archive.is_file() and _sha256(archive) in hashes:
            return archive
        command = [sys.executable, "-m", "pip", "download", "-v", "--no-deps", "--require-hashes", "--no-cache-dir"]
        command += ["--no-binary", _PACKAGE, "-r", str(recipe.ENGINE_LOCK), "-d", str(sources)]
        _check(run_with_progress(command, env, log, "engine source"), log, "fetching the engine's source")
        if not (archive.is_file() and _sha256(archive) in hashes):
            raise BuildError(f"pip fetched something else than {archive}; run `make lock` if the version has changed")
    return archive


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compile_wheel(order: Order, folder: Path, sources: Path, log: Path) -> Path:
    """Compile in `folder`, which is made anew, and return the wheel below it. Raises BuildError, keeping the log."""
    check_compiler(os.environ)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    env = build_environment(order, folder)
    archive = fetch_source(sources, env, log)
    with tarfile.open(archive) as opened:
        # Its hash is pinned, so its names are known; Pythons before 3.11.4 have no filter.
        opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        opened.extractall(folder)  # noqa: S202
    source = folder / archive.name.removesuffix(".tar.gz")
    out = folder / "out"
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-cache-dir", "--no-deps", "-w", str(out)]
    command += [f"--config-settings=build-dir={folder / 'build'}", str(source)]
    env |= {"CCACHE_BASEDIR": str(folder), "CCACHE_NOHASHDIR": "1"}
    _check(run_with_progress(command, env, log, order.title), log, "building the engine")
    wheel = next(iter(sorted(out.glob("*.whl"))), None)
    if wheel is None:
        raise BuildError(f"pip built no wheel in {out}; see {log}")
    return wheel


def _check(code: int, log: Path, what: str) -> None:
    if code != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise BuildError(f"{what} failed (pip exited {code}); the end of {log}:\n{tail}")
