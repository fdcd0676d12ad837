"""The gateway as a process: start, signals, drain, exit codes. The engine behind it is the fake program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.settings import RUN_DIR_VARIABLE
from support.gateway_box import KEY, Box, default_keys, key_record, make_box, stopping, wait_until

TESTS = Path(__file__).parents[1]

USER = [{"role": "user", "content": "hi"}]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A run directory with a fake engine that answers in it."""
    made = make_box(tmp_path, {"gateway": {"drain_seconds": 5.0}})
    engine = subprocess.Popen(
        [sys.executable, "-m", "support.fake_engine", str(made.socket)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
    )
    with stopping(engine):
        assert engine.stdout is not None
        assert engine.stdout.readline() == b"ready\n"
        yield made
    engine.stdout.close()


def open_stream(box: Box, **fake: Any) -> socket.socket:
    """Ask for a stream and return the connection once its head has come."""
    body = json.dumps({"messages": USER, "stream": True, "metadata": {"fake": fake}}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    sock = socket.create_connection(("127.0.0.1", box.port), timeout=20)
    sock.sendall(head.encode() + body)
    assert sock.recv(12) == b"HTTP/1.1 200"
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side closes."""
    data = b""
    with sock:
        while piece := sock.recv(65536):
            data += piece
    return data


def refuses_connections(box: Box) -> bool:
    """Return whether nobody listens on the gateway's port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", box.port)) != 0


def test_sigterm_finishes_what_runs_and_takes_nothing_new(box: Box) -> None:
    gateway = box.start_gateway()
    with stopping(gateway):
        idle = socket.create_connection(("127.0.0.1", box.port), timeout=20)
        stream = open_stream(box, tokens=10, pause=0.1)
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(box), 3)
        assert read_all(idle) == b""
        body = read_all(stream)
        assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert gateway.wait(60) == 0
    assert box.access_lines()[-1]["outcome"] == "ok"
    assert "gateway stopped" in box.log


def test_a_drain_that_takes_too_long_is_cut(box: Box) -> None:
    gateway = box.start_gateway()
    with stopping(gateway):
        stream = open_stream(box, tokens=2, hang_after=1)
        begin = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(60) == 0
        assert time.monotonic() - begin > 4.5
        stream.close()
    assert "aborting in-flight requests" in box.log
    assert box.access_lines()[-1]["outcome"] == "client_gone"


def test_a_second_sigterm_hurries(box: Box) -> None:
    gateway = box.start_gateway()
    with stopping(gateway):
        stream = open_stream(box, tokens=2, hang_after=1)
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(box), 3)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(60) == 0
        stream.close()


def test_sighup_reads_the_keys_again(box: Box) -> None:
    gateway = box.start_gateway()
    with stopping(gateway):
        box.write_keys([*default_keys(), key_record("third", "sk-third-" + "3" * 30)])
        gateway.send_signal(signal.SIGHUP)
        wait_until(lambda: '"keys": 3' in box.log, 3, lambda: box.log)
        assert gateway.poll() is None


def test_kill_9_leaves_nothing_that_stops_a_new_start(box: Box) -> None:
    gateway = box.start_gateway()
    gateway.kill()
    gateway.wait()
    again = box.start_gateway()
    with stopping(again):
        assert box.answers("/ping")


def run_gateway(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a gateway that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "llama_gguf.gateway"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_port_in_use_is_said_so(box: Box) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", box.port))
        taken.listen()
        done = run_gateway({RUN_DIR_VARIABLE: str(box.shot.locations.run.root)})
    assert done.returncode == 69
    assert f"cannot listen on 127.0.0.1:{box.port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_run_directory_it_says_how_programs_are_started() -> None:
    done = run_gateway({RUN_DIR_VARIABLE: ""})
    assert done.returncode == 78
    assert "llama-gguf up" in done.stderr


def test_without_a_snapshot_or_the_engines_key_it_fails_closed(box: Box) -> None:
    box.shot.locations.run.engine_key.unlink()
    done = run_gateway({RUN_DIR_VARIABLE: str(box.shot.locations.run.root)})
    assert done.returncode == 69
    assert "engine's key" in done.stderr
    box.shot.locations.run.snapshot.unlink()
    done = run_gateway({RUN_DIR_VARIABLE: str(box.shot.locations.run.root)})
    assert done.returncode == 78


def test_an_unknown_host_is_said_so(tmp_path: Path) -> None:
    box = make_box(tmp_path, {"gateway": {"host": "no-such-host.invalid"}})
    done = run_gateway({RUN_DIR_VARIABLE: str(box.shot.locations.run.root)})
    assert done.returncode == 69
    assert "gateway.host" in done.stderr


def test_sigterm_lets_a_slow_client_take_its_answer(box: Box) -> None:
    gateway = box.start_gateway()
    with stopping(gateway):
        body = json.dumps({"messages": USER, "metadata": {"fake": {"tokens": 1, "event_bytes": 20_000_000}}}).encode()
        sock = socket.create_connection(("127.0.0.1", box.port), timeout=20)
        sock.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        data = sock.recv(100_000)
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(box), 3)
        time.sleep(0.3)
        data += read_all(sock)
        head, _, answer = data.partition(b"\r\n\r\n")
        assert head.endswith(f"\r\nContent-Length: {len(answer)}".encode())
        assert len(answer) > 20_000_000
        assert gateway.wait(60) == 0
