"""The health program as supervisord runs it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir, locate, parse

COMMAND = (sys.executable, "-W", "error", "-P", "-m", "llama_gguf.health")


@pytest.fixture
def run() -> Iterator[RunDir]:
    folder = Path(tempfile.mkdtemp(prefix="lg"))
    yield RunDir(root=folder)
    shutil.rmtree(folder)


def write_snapshot(run: RunDir, port: int) -> None:
    tree = {
        "model": {"path": "/m"},
        "paths": {"run_dir": str(run.root), "data_dir": str(run.root)},
        "gateway": {"host": "127.0.0.1", "port": 1},
        "health": {"host": "127.0.0.1", "port": port, "path": "/healthy"},
    }
    settings = parse(tree)
    snapshots.write(Snapshot(settings=settings, locations=locate(settings, {})), run.snapshot)


def started(run: RunDir) -> subprocess.Popen[str]:
    env = {**os.environ, RUN_DIR_VARIABLE: str(run.root)}
    return subprocess.Popen(COMMAND, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("marker", [False, True])
def test_serves_and_stops(run: RunDir, marker: bool) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write_snapshot(run, port)
    if marker:
        run.ready.touch()
    process = started(run)
    deadline = time.monotonic() + 20
    answered = None
    while answered is None and time.monotonic() < deadline:
        try:
            answered = ask(port, "/healthy")
        except OSError:
            time.sleep(0.02)
    assert answered == ((503 if marker else 204), b"")
    since = json.loads(ask(port, "/health")[1])["since"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", since)  # as every other window writes a time
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "health server listening" in out
    assert err == ""


def test_a_taken_port_is_told(run: RunDir) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        write_snapshot(run, taken.getsockname()[1])
        process = started(run)
        _out, err = process.communicate(timeout=20)
    assert process.returncode == 69
    assert err.startswith("error: cannot listen on 127.0.0.1:")
    assert "hint: set health.port to a free port" in err


def test_no_snapshot_and_no_run_dir(run: RunDir) -> None:
    process = started(run)
    _out, err = process.communicate(timeout=20)
    assert process.returncode == 78
    assert "no snapshot of the settings" in err
    env = {name: value for name, value in os.environ.items() if name != RUN_DIR_VARIABLE}
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 78
    assert RUN_DIR_VARIABLE in done.stderr
