"""Starts a real `llama-gguf up` in a folder of its own, waits for it, sends requests and stops it.

    with running(tmp_path, model=tiny_model) as appliance:
        appliance.wait_ready()
        appliance.post("/v1/chat/completions", {...})

Settings go in as a tree that is merged over the defaults below. stdout and stderr go to files in the folder. At the
end everything is stopped, whatever the test did, and `leftovers` says what survived.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_gguf.rundir.supervisord_client import Supervisord

from .patience import PATIENCE
from .ports import free_ports

KEY = "sk-test-0123456789abcdefghijklmnopqrstuvwxyzABCDE"
KEY_VARIABLE = "TEST_FIRST_KEY"
READY_SECONDS = 30.0


@dataclass(frozen=True)
class Response:
    """A complete HTTP response."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Appliance:
    """One `llama-gguf up` process and where its parts are."""

    process: subprocess.Popen[bytes]
    folder: Path
    run_dir: Path
    config: Path
    gateway_port: int
    health_port: int
    started_at: float  # monotonic
    env: dict[str, str]
    supervisord_pid: int = 0  # remembered by `leftovers`, because it names the session of all programs

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout.txt").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.txt").read_text(errors="replace")

    def ask(self, port: int, path: str, *, method: str = "GET", body: Any = None, timeout: float = 30.0) -> Response:
        """Make one request with the first key. Raises OSError where nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        headers = {"Authorization": f"Bearer {KEY}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, *, timeout: float = 30.0) -> Response:
        """GET from the gateway."""
        return self.ask(self.gateway_port, path, timeout=timeout)

    def post(self, path: str, body: Any, *, timeout: float = 60.0) -> Response:
        """POST JSON to the gateway."""
        return self.ask(self.gateway_port, path, method="POST", body=body, timeout=timeout)

    def ping(self) -> int | None:
        """Status of the platform's health check, or None without a response."""
        try:
            return self.ask(self.health_port, "/ping", timeout=5).status
        except OSError:
            return None

    def health(self) -> dict[str, Any] | None:
        """The health server's details, or None without a response."""
        try:
            found: dict[str, Any] = self.ask(self.health_port, "/health", timeout=5).json()
        except (OSError, ValueError):
            return None
        return found

    def wait_ready(self, timeout: float = READY_SECONDS) -> float:
        """Wait until /ping says 200; return the seconds since the start."""
        self.wait_for(lambda: self.ping() == 200, timeout, "ready")
        return time.monotonic() - self.started_at

    def wait_for(self, happened: Callable[[], object], timeout: float, what: str) -> None:
        """Wait until `happened` is true; fail immediately where `up` has exited."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not happened():
            if self.process.poll() is not None:
                raise AssertionError(f"`up` ended with {self.process.returncode} before: {what}\n{self._words()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s: {what}\n{self._words()}")
            time.sleep(0.02)

    def wait_exit(self, timeout: float = 30.0) -> int:
        """Wait for `up` to exit; return its exit code."""
        try:
            return self.process.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"`up` did not end within {timeout} s\n{self._words()}") from None

    def pid(self, program: str) -> int:
        """Pid of a program (or of `supervisord`); 0 while there is none."""
        if program == "supervisord":
            return self._remember_supervisord()
        infos = Supervisord(self.run_dir / "supervisord.sock").programs()
        return next((info.pid for info in infos if info.name == program), 0)

    def kill(self, program: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a program; return the pid that got it."""
        pid = self.pid(program)
        os.kill(pid, number)
        return pid

    def status(self) -> dict[str, Any]:
        """What `llama-gguf status --json` prints."""
        done = self.cli("status", "--run-dir", str(self.run_dir), "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `llama-gguf` command in the same environment."""
        return subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, timeout=60 * PATIENCE, check=False, env=self.env
        )

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Stop `up`, wait, and return its exit code."""
        self._remember_supervisord()
        self.process.send_signal(number)
        return self.wait_exit(timeout)

    def leftovers(self) -> list[str]:
        """Command lines of processes, and names of sockets and keys, that must not be left at the end."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                if self.supervisord_pid and int(fields[3]) == self.supervisord_pid and fields[0] != "Z":
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
        names = ("engine.sock", "supervisord.sock", "supervisord.pid", "engine.key", "draining", "settings.json")
        found += [name for name in names if os.path.lexists(self.run_dir / name)]
        return found

    def _remember_supervisord(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            self.supervisord_pid = int((self.run_dir / "supervisord.pid").read_text())
        return self.supervisord_pid

    def _words(self) -> str:
        return f"--- stdout\n{self.stdout[-6000:]}\n--- stderr\n{self.stderr[-6000:]}"


COMMAND = (sys.executable, "-m", "llama_gguf.cli")


def settings_tree(folder: Path, run_dir: Path, model: Path | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a test's appliance: loopback, free ports, short pauses."""
    port, health_port = free_ports(2)
    tree: dict[str, Any] = {
        "paths": {"data_dir": str(folder / "data"), "run_dir": str(run_dir)},
        "model": {"path": str(model)} if model else {},
        "engine": {"context_per_slot": 512, "slots": 2, "gpu_layers": 0, "threads": 1},
        "gateway": {"host": "127.0.0.1", "port": port, "drain_seconds": 10},
        "health": {"host": "127.0.0.1", "port": health_port, "platform": "plain", "check_interval_seconds": 0.1},
        "auth": {"bootstrap": {"env": KEY_VARIABLE}},
        "supervisor": {"start_retries": 1, "stop_seconds": 5},
    }
    return _merged(tree, overrides)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def start(
    folder: Path,
    *,
    model: Path | None,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    run_dir: Path | None = None,
) -> Appliance:
    """Start `llama-gguf up`; the caller stops it. `running` is the better choice in most tests."""
    folder.mkdir(parents=True, exist_ok=True)
    run_dir = run_dir or Path(tempfile.mkdtemp(prefix="lg")) / "run"  # short: it holds unix sockets
    tree = settings_tree(folder, run_dir, model, overrides or {})
    config = folder / "config.yaml"
    config.write_text(json.dumps(tree, indent=1))  # JSON is YAML
    surroundings = {**os.environ, KEY_VARIABLE: KEY, "HOME": str(folder), **(env or {})}
    surroundings.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed appliance has its byte code
    with (folder / "stdout.txt").open("wb") as stdout, (folder / "stderr.txt").open("wb") as stderr:
        started_at = time.monotonic()
        process = subprocess.Popen(
            [*COMMAND, "up", "--config", str(config), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=surroundings,
            cwd=folder,
        )
    gateway_port, health_port = tree["gateway"]["port"], tree["health"]["port"]
    return Appliance(process, folder, run_dir, config, gateway_port, health_port, started_at, surroundings)


@contextlib.contextmanager
def running(
    folder: Path,
    *,
    model: Path | None,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    run_dir: Path | None = None,
) -> Iterator[Appliance]:
    """Run an appliance for the length of the block; `overrides` is a tree like config.yaml."""
    appliance = start(folder, model=model, overrides=overrides, env=env, arguments=arguments, run_dir=run_dir)
    try:
        yield appliance
    finally:
        _end(appliance)
        if run_dir is None:
            shutil.rmtree(appliance.run_dir.parent, ignore_errors=True)


def _end(appliance: Appliance) -> None:
    process = appliance.process
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
