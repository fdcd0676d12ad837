"""A gateway as a real process in a run directory of its own, in front of an engine: the real one or a fake program."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gguf.keys import file_format, secret
from llama_gguf.keys.record import KeyFile, KeyRecord
from llama_gguf.rundir import snapshot
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, locate, parse

from .patience import PATIENCE
from .ports import free_port

ENGINE_KEY = "engine-key-of-the-tests-0123456789"
KEY = "sk-test-inference-0000000000000000"
ADMIN_KEY = "sk-test-admin-000000000000000000000"
STARTED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def key_record(key_id: str, key: str, **changes: Any) -> KeyRecord:
    """Return a record for a plain key."""
    return KeyRecord(
        id=key_id, digest=secret.digest(key), prefix=secret.visible_prefix(key), created=STARTED, **changes
    )


def default_keys() -> tuple[KeyRecord, ...]:
    """Return a key for inference and one for everything."""
    return (
        key_record("tester", KEY),
        key_record("boss", ADMIN_KEY, scopes=frozenset({"inference", "metrics", "admin"})),
    )


def merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, section by section."""
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(value, Mapping) and isinstance(old, dict) else value
    return merged


@dataclass
class Box:
    """A run directory with everything a gateway needs, and the processes started in it."""

    root: Path
    shot: Snapshot
    port: int
    env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The URL of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        """Where the engine listens."""
        return self.shot.locations.run.engine_socket

    def write_keys(self, records: Sequence[KeyRecord]) -> None:
        """Replace the keys file."""
        path = self.shot.locations.keys_file
        new = path.with_name(path.name + ".new")
        new.write_text(file_format.render(KeyFile(records=tuple(records))), encoding="utf-8")
        new.chmod(0o600)
        new.replace(path)

    def start_gateway(self) -> subprocess.Popen[bytes]:
        """Start the gateway and wait until it responds."""
        log = (self.root / "gateway.out").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llama_gguf.gateway"],
            env={**os.environ, RUN_DIR_VARIABLE: str(self.shot.locations.run.root), **self.env},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        wait_until(lambda: self.answers("/livez"), 15, lambda: self.log)
        return process

    def start_engine(self, binary: Path, model: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the real engine on the socket and wait until it is ready."""
        log = (self.root / "engine.out").open("ab")
        self.socket.unlink(missing_ok=True)
        command = [str(binary), "--host", str(self.socket), "--model", str(model), "--alias", "tiny", "--no-ui"]
        command += ["--api-key-file", str(self.shot.locations.run.engine_key), "--slots", "--metrics", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        wait_until(
            lambda: engine_get(self.socket, "/health")[0] == 200,
            60,
            lambda: (self.root / "engine.out").read_text(errors="replace"),
        )
        return process

    def answers(self, path: str) -> bool:
        """Return whether the gateway responds to a GET with 2xx."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:  # noqa: S310 - our own loopback URL
                return bool(200 <= answer.status < 300)
        except (OSError, urllib.error.URLError):
            return False

    @property
    def log(self) -> str:
        """All that the gateway has printed."""
        return (self.root / "gateway.out").read_text(errors="replace")

    def access_lines(self) -> list[dict[str, Any]]:
        """Return the access log, parsed."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == "request"]


def make_box(root: Path, changes: Mapping[str, Any] | None = None) -> Box:
    """Create a run directory; nothing is started. With `models` there is no `model`."""
    port = free_port()
    tiny = {
        "path": "/models/tiny.gguf",
        "aliases": ["tiny"],
        "mmproj": {"path": "/models/tiny-mmproj.gguf"},  # without one uploads are refused
    }
    plain: dict[str, Any] = {} if "models" in (changes or {}) else {"model": tiny}
    tree = merge(
        {
            **plain,
            "paths": {"data_dir": str(root / "data"), "run_dir": str(root / "run")},
            "gateway": {"host": "127.0.0.1", "port": port},
            "engine": {"slots": 2, "context_per_slot": 2048},
            "limits": {"requests_per_minute": None},
            "logging": {"format": "json"},
        },
        changes or {},
    )
    settings = parse(tree)
    locations = locate(settings, {})
    for folder in (locations.run.root, locations.data_dir):
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    shot = Snapshot(settings=settings, locations=locations)
    for one in shot.models:
        engine_key = locations.run.of_engine(one.program).engine_key
        engine_key.write_text(ENGINE_KEY + "\n", encoding="ascii")
        engine_key.chmod(0o600)
    snapshot.write(shot, locations.run.snapshot)
    box = Box(root, shot, port)
    box.write_keys(default_keys())
    return box


@contextmanager
def stopping(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop processes at the end, by SIGTERM and then SIGKILL."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(condition: Any, seconds: float, explain: Any = None) -> None:
    """Wait until `condition()` is true, or fail with what `explain()` returns."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {explain() if explain else condition}")
        time.sleep(0.02)


def engine_get(path: Path, target: str) -> tuple[int, bytes]:
    """GET from the engine, bypassing the gateway; status 0 when it cannot be reached."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        try:
            sock.connect(str(path))
            sock.sendall(
                f"GET {target} HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer {ENGINE_KEY}\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            data = b""
            while piece := sock.recv(65536):
                data += piece
        except OSError:
            return 0, b""
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]), body) if head else (0, b"")


def busy_slots(path: Path) -> int:
    """Return how many slots of the real engine are busy."""
    status, body = engine_get(path, "/slots")
    assert status == 200, (status, body)
    return sum(1 for slot in json.loads(body) if slot["is_processing"])
