"""Compile the engine's wheel: the source pinned by hash, our CMake arguments without the user's, with progress.

Source and build are in the same folder each time, so that ccache, which llama.cpp uses where it is installed, has cache
hits.
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

_BYTES_PER_JOB = 1_500_000_000  # memory of the largest translation unit, with some margin
_PACKAGE = "llama-cpp-python"


class BuildError(Exception):
    """The engine could not be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class CompileJob:
    """What to compile: CMake arguments, flags that disable instructions, pins of the build dependencies."""

    title: str
    cmake: tuple[str, ...]
    compiler_flags: tuple[str, ...]
    constraints: tuple[str, ...]


def job_count() -> int:
    """Return how many compilers can run in parallel with this machine's CPUs and memory."""
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
    """Hold the lock at `path`; while another process holds it, print that and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process builds the same; waiting for its lock ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_with_progress(command: list[str], env: Mapping[str, str], log: Path, title: str) -> int:
    """Run `command` with its output in `log`, showing its progress; terminate its process group when interrupted."""
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
    """Return whether this Python's pip has PIP_BUILD_CONSTRAINT."""
    major, minor = metadata.version("pip").split(".")[:2]
    return (int(major), int(minor)) >= (25, 3)


def build_environment(job: CompileJob, scratch: Path) -> dict[str, str]:
    """Return the environment for pip: our arguments and flags, without the user's.

    Writes the files they refer to into `scratch`, because the path of our own tree can contain spaces.
    """
    constraints = scratch / "constraints.txt"
    constraints.write_text("\n".join(job.constraints) + "\n", encoding="utf-8")
    patches = Path(shutil.copy(recipe.PATCHES_FILE, scratch))
    flags = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SKBUILD_", "CMAKE_")) and name not in flags
    }
    arguments = (*job.cmake, f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={patches}")
    if any(" " in argument for argument in arguments):
        raise BuildError(
            "a CMake argument contains a space, which CMAKE_ARGS does not support; use a cache path without spaces"
        )
    env["CMAKE_ARGS"] = " ".join(arguments)
    env["CMAKE_BUILD_PARALLEL_LEVEL"] = str(job_count())
    if job.compiler_flags:
        env["CFLAGS"] = env["CXXFLAGS"] = " ".join(job.compiler_flags)
    # pip 25.3 renamed the variable; each pip ignores the other name.
    env["PIP_BUILD_CONSTRAINT" if pip_has_build_constraints() else "PIP_CONSTRAINT"] = str(constraints)
    return env


def fetch_source(sources: Path, env: Mapping[str, str], log: Path) -> Path:
    """Return the source archive that image/engine/requirements.lock pins, from `sources` or downloaded by pip."""
    lock = recipe.ENGINE_LOCK.read_text(encoding="utf-8")
    hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))
    name = f"{_PACKAGE.replace('-', '_')}-{recipe.engine_version(lock)}.tar.gz"
    archive = sources / name
    with locked(sources / f"{name}.lock"):
        if archive.is_file() and _sha256(archive) in hashes:
            return archive
        command = [sys.executable, "-m", "pip", "download", "-v", "--no-deps", "--require-hashes", "--no-cache-dir"]
        command += ["--no-binary", _PACKAGE, "-r", str(recipe.ENGINE_LOCK), "-d", str(sources)]
        _check(run_with_progress(command, env, log, "engine source"), log, "downloading the engine's source")
        if not (archive.is_file() and _sha256(archive) in hashes):
            raise BuildError(f"pip did not download {archive}; run `make lock` if the version has changed")
    return archive


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compile_wheel(job: CompileJob, folder: Path, sources: Path, log: Path) -> Path:
    """Compile in `folder`, which is created again, and return the wheel below it. Raises BuildError."""
    check_compiler(os.environ)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    env = build_environment(job, folder)
    archive = fetch_source(sources, env, log)
    with tarfile.open(archive) as opened:
        # Its hash is pinned, so its member names are trusted; Python before 3.11.4 has no filter.
        opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        opened.extractall(folder)  # noqa: S202
    source = folder / archive.name.removesuffix(".tar.gz")
    out = folder / "out"
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-cache-dir", "--no-deps", "-w", str(out)]
    command += [f"--config-settings=build-dir={folder / 'build'}", str(source)]
    env |= {"CCACHE_BASEDIR": str(folder), "CCACHE_NOHASHDIR": "1"}
    _check(run_with_progress(command, env, log, job.title), log, "building the engine")
    wheel = next(iter(sorted(out.glob("*.whl"))), None)
    if wheel is None:
        raise BuildError(f"pip built no wheel in {out}; see {log}")
    return wheel


def _check(code: int, log: Path, what: str) -> None:
    if code != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise BuildError(f"{what} failed (pip exited {code}); the end of {log}:\n{tail}")
