"""What commands ask a gateway: where the key comes from, and what they make of what else answers on its port."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_gguf.cli.gateway_calls import OperatorCalls, model_states, operator_calls, read_key
from llama_gguf.errors import ApplianceError, ExitCode
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir, locate, parse
from llama_gguf.settings.loading.known_variables import ADMIN_KEY_VARIABLE

KEY = "sk-test-admin-000000000000000000000"


@contextmanager
def answering(response: bytes) -> Iterator[tuple[OperatorCalls, list[bytes]]]:
    """Yield calls to a server that answers one request with these bytes, and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(response)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        settings = parse({"model": {"path": "/m"}, "gateway": {"host": "127.0.0.1", "port": port}})
        yield OperatorCalls(Snapshot(settings=settings, locations=locate(settings, {})), KEY), asked
        thread.join(10)


def response(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status.encode(), len(body), body)


def test_the_key_is_sent_in_a_header_only() -> None:
    with answering(response(b'{"models": [{"name": "a"}, 7]}')) as (calls, asked):
        assert calls.residency() == [{"name": "a"}]
    assert asked[0].count(KEY.encode()) == 1
    assert f"Authorization: Bearer {KEY}\r\n".encode() in asked[0]


@pytest.mark.parametrize(
    ("answer", "says", "code"),
    [
        (response(b"<html>", "404 Not Found"), "is no gateway", ExitCode.UNAVAILABLE),
        (response(b"[1]"), "is no gateway", ExitCode.UNAVAILABLE),
        (response(b'{"error": "a text"}', "500 Oh"), "status 500", ExitCode.UNAVAILABLE),
        (response(b'{"error": {"message": "no\\u001b[2J"}}', "403 No"), "no", ExitCode.CONFIG),
        (response(b"", "302 Found\r\nLocation: http://elsewhere.example/"), "is no gateway", ExitCode.UNAVAILABLE),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not answer", ExitCode.UNAVAILABLE),
        (b"", "does not answer", ExitCode.UNAVAILABLE),
    ],
)
def test_what_is_no_answer_of_a_gateway_is_an_error(answer: bytes, says: str, code: ExitCode) -> None:
    with answering(answer) as (calls, _), pytest.raises(ApplianceError) as caught:
        calls.change("load", "a")
    assert says in caught.value.message
    assert "\x1b" not in caught.value.message
    assert KEY not in caught.value.message + caught.value.hint
    assert caught.value.exit_code == code


def test_models_that_are_none_are_left_out() -> None:
    with answering(response(json.dumps({"models": "all"}).encode())) as (calls, _):
        assert calls.known_states() == []


def test_the_file_counts_before_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f" {KEY}\n")
    assert read_key(file, {ADMIN_KEY_VARIABLE: "x" * 20}) == KEY
    assert read_key(None, {ADMIN_KEY_VARIABLE: f"'{KEY}'"}) == KEY
    assert read_key(None, {}) is None
    assert read_key(None, {ADMIN_KEY_VARIABLE: " "}) is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"short", b"with a blank in between", b"x" * 129, b"x\r\nHost: y" * 3]
)
def test_what_is_no_key_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ApplianceError) as caught:
        read_key(file, {})
    assert caught.value.exit_code == ExitCode.CONFIG
    assert not content or content.decode("latin-1") not in caught.value.message
    with pytest.raises(ApplianceError, match="No such file"):
        read_key(tmp_path / "none", {})


def test_where_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="nothing runs in"):
        operator_calls(RunDir(tmp_path), None, {ADMIN_KEY_VARIABLE: KEY})
    assert model_states(RunDir(tmp_path), {ADMIN_KEY_VARIABLE: KEY}) is None
