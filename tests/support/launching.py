"""Runs `launch` with stand-in programs in a process of its own, because it owns signals and adopts orphans.

In a test: `with launched(tmp_path, [standin("a", "--exit=3")]) as up: …`. As a program: `launching.py SPEC.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llama_gguf import logs
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.rundir.supervisord_client import Supervisord
from llama_gguf.runtime.launch import LaunchInputs, launch
from llama_gguf.runtime.programs import Program
from llama_gguf.settings import RunDir, locate, parse
from support.patience import PATIENCE
from support.terminal import terminal

STANDIN = str(Path(__file__).with_name("standin.py"))


def standin(name: str, *knobs: str, priority: int = 20, stop_seconds: int = 5, **more: Any) -> Program:
    """A program that does as the knobs of standin.py say."""
    argv = (Path(sys.executable).name, "-P", STANDIN, f"--name={name}", *knobs)
    return Program(name, argv, priority, stop_seconds, variables=("STANDIN_*",), **more)


def listener() -> Program:
    """The real fatal listener, without the engine's diagnosis."""
    return standin("listener", "--listener", priority=1, stop_seconds=2, start_seconds=0, listener=True)


@dataclass
class Launched:
    """`launch` at work in another process."""

    process: subprocess.Popen[bytes]
    folder: Path
    run: RunDir
    supervisord_pid: int = 0
    _seen: list[str] = field(default_factory=list)

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout.txt").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.txt").read_text(errors="replace")

    @property
    def rpc(self) -> Supervisord:
        return Supervisord(self.run.supervisord_socket)

    def marks(self) -> list[str]:
        """What the stand-ins wrote, without the times."""
        path = self.folder / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.rpartition(" ")[0] for line in lines]

    def pids(self, name: str) -> list[int]:
        """The pids of all runs of a stand-in."""
        return [int(line.split()[2]) for line in self.marks() if line.startswith(f"{name} start")]

    def wait_for(self, happened: Callable[[], object], what: str, timeout: float = 15.0) -> None:
        """Wait until `happened` is true."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not happened():
            if time.monotonic() > deadline:
                log = self.run.supervisord_log
                raise AssertionError(
                    f"not within {timeout} s: {what}\n{self.stdout}\n{self.stderr}\n{self.marks()}\n"
                    f"{log.read_text() if log.exists() else 'no supervisord.log'}"
                )
            time.sleep(0.02)

    def wait_started(self, *names: str) -> None:
        """Wait until each has started once, and remember the session they live in."""
        self.wait_for(lambda: all(self.pids(name) for name in names), f"start of {names}")
        self.wait_for(self.run.supervisord_pid.exists, "supervisord's pid file")
        self.supervisord_pid = int(self.run.supervisord_pid.read_text())

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 20.0) -> int:
        """Signal, wait and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout * PATIENCE)

    def survivors(self) -> list[int]:
        """Processes of supervisord's session that still run."""
        from llama_gguf.runtime.process import session_members

        assert self.supervisord_pid
        return session_members(self.supervisord_pid)


@contextlib.contextmanager
def launched(
    folder: Path,
    programs: Sequence[Program],
    *,
    settings: Mapping[str, Any] | None = None,
    run_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    columns: int | None = None,
) -> Iterator[Launched]:
    """Launch `programs`; at the end of the block everything is stopped.

    With `columns` its stdout and stderr are one terminal of that width, and `stdout` is what stands on it.
    """
    base = Path(tempfile.mkdtemp(prefix="lg"))
    run_dir = run_dir or base / "run"
    paths = {"run_dir": str(run_dir), "data_dir": str(folder / "data")}
    tree = {"model": {"path": "unused"}, "paths": paths, **(settings or {})}
    spec = {"settings": tree, "programs": [asdict(program) for program in programs]}
    (folder / "spec.json").write_text(json.dumps(spec))
    surroundings = {**os.environ, "STANDIN_MARKS": str(folder / "marks"), **(env or {})}
    surroundings.pop("PYTHONDONTWRITEBYTECODE", None)
    surroundings["PYTHONPATH"] = str(Path(__file__).parents[1])
    with contextlib.ExitStack() as stack:
        if columns is None:
            stdout = stack.enter_context((folder / "stdout.txt").open("wb")).fileno()
            stderr = stack.enter_context((folder / "stderr.txt").open("wb")).fileno()
        else:
            stdout = stderr = stack.enter_context(terminal(folder / "stdout.txt", columns=columns))
        process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__, str(folder / "spec.json")],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=surroundings,
        )
        up = Launched(process, folder, RunDir(root=run_dir))
        try:
            yield up
        finally:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
                if process.poll() is not None:
                    break
                process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(8)
            shutil.rmtree(base, ignore_errors=True)


def main() -> int:
    """Launch what the spec says."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    settings = parse(spec["settings"])
    programs = [
        Program(**{**item, "argv": tuple(item["argv"]), "variables": tuple(item["variables"])})
        for item in spec["programs"]
    ]
    level = "info" if os.isatty(1) else "debug"
    logs.configure("up", format=settings.logging.format, level=level)
    snapshot = Snapshot(settings=settings, locations=locate(settings, os.environ))
    return launch(LaunchInputs(snapshot, programs, os.environ, stdout=1, stderr=sys.stderr))


if __name__ == "__main__":
    sys.exit(main())
