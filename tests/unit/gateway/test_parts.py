"""The small pure parts: models, headers, request heads, catalogue, deadlines, sockets."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import socket
import time
from pathlib import Path

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.errors import LaunchError
from llama_gguf.gateway import server
from llama_gguf.gateway.api.engine_views import present_models, present_props
from llama_gguf.gateway.http1.deadlines import DeadlineChecker
from llama_gguf.gateway.http1.header_rules import HttpLimits, check_framing, join_headers
from llama_gguf.gateway.http1.message import header_lines
from llama_gguf.gateway.http1.request_parser import parse_head
from llama_gguf.gateway.http1.response_head import ResponseHeadWriter
from llama_gguf.gateway.inputs import read_runtime_inputs
from llama_gguf.gateway.pipeline import request_id
from llama_gguf.gateway.upstream.request import engine_head, engine_request
from llama_gguf.gateway.upstream.response_parser import content_type
from support.gateway_box import KEY, key_record, make_box
from support.http_client import read_answer, request_bytes
from support.running_gateway import Start, chat

LIMITS = HttpLimits(1000, 16, 512, 256, 1.0, 1.0)
ENGINE = json.dumps({"data": [{"id": "/m/x.gguf", "created": 5, "meta": {"n_ctx_train": 9, "path": "/m"}}]}).encode()


def test_models_are_shown_under_their_names() -> None:
    shown = json.loads(present_models(ENGINE, ("a", "b"), ("b", "c"), wanted=""))
    assert shown == {
        "object": "list",
        "data": [{"id": "b", "object": "model", "created": 5, "owned_by": "llama.cpp", "meta": {"n_ctx_train": 9}}],
    }
    assert json.loads(present_models(ENGINE, ("a b",), None, wanted="a%20b"))["id"] == "a b"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": []}', b'{"data": [5]}', b'{"data": 5}', b"[1]"])
def test_models_without_data_of_the_engine_still_have_names(body: bytes) -> None:
    entry = json.loads(present_models(body, ("a",), None, wanted="a"))
    assert entry == {"id": "a", "object": "model", "created": 0, "owned_by": "llama.cpp"}


def test_request_ids() -> None:
    assert request_id(b"ok-1") == "ok-1"
    for bad in (b"", b"a b", b"a\x00", b"a" * 200, b"\xff", None):
        assert re.fullmatch(r"[0-9a-f]{32}", request_id(bad))


def test_requests_to_the_engine() -> None:
    head = engine_head("POST", "/x", "key")
    assert engine_request(head, b"{}", b"application/json") == (
        b"POST /x HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer key\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert engine_request(head, b"", b"").endswith(b"Bearer key\r\n\r\n")
    assert content_type([(b"x", b"y")]) == b""


def test_no_value_can_end_its_header_line() -> None:
    assert header_lines([("A", "b\r\nSet-Cookie: c"), ("D", "e\nf")]) == "A: b Set-Cookie: c\r\nD: e f\r\n"


def test_repeated_headers() -> None:
    assert join_headers([(b"Accept", b"a"), (b"accept", b"b")]) == {b"accept": b"a, b"}
    for name in (b"Authorization", b"Host", b"X-Own"):
        with pytest.raises(GatewayError):
            join_headers([(name, b"a"), (name, b"a")], extra_once=b"x-own")


def test_framing() -> None:
    assert check_framing({}, 10) == 0
    assert check_framing({b"content-length": b"10"}, 10) == 10
    assert check_framing({b"transfer-encoding": b"Chunked "}, 10) is None
    assert check_framing({b"content-encoding": b"identity"}, 10) == 0
    bad: list[tuple[dict[bytes, bytes], int]] = [
        ({b"content-length": b"11"}, 413),
        ({b"content-length": b"-1"}, 400),
        ({b"content-length": b"1" * 30}, 400),
        ({b"content-length": b"\xb2"}, 400),
        ({b"transfer-encoding": b"gzip"}, 400),
        ({b"transfer-encoding": b"chunked", b"content-length": b"1"}, 400),
        ({b"content-encoding": b"br"}, 415),
    ]
    for headers, status in bad:
        with pytest.raises(GatewayError) as caught:
            check_framing(headers, 10)
        assert caught.value.status == status


def test_a_parsed_request_head() -> None:
    head = parse_head(b"GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nConnection: Close\r\n\r\n", LIMITS)
    assert (head.method, head.path, head.query, head.length) == ("GET", "/a/b", "c=d", 0)
    assert head.headers[b"x-a"] == b"1"
    assert not head.keep_alive
    assert parse_head(b"GET https://x HTTP/1.1\r\nHost: x\r\n\r\n", LIMITS).path == "/"


def test_written_heads() -> None:
    writer = ResponseHeadWriter()
    whole = writer.whole(200, "A: b\r\n", 5, close=True)
    assert re.fullmatch(
        rb"HTTP/1.1 200 OK\r\nServer: llama-gguf\r\nDate: [^\r]+ GMT\r\nA: b\r\nContent-Length: 5\r\n"
        rb"Connection: close\r\n\r\n",
        whole,
    )
    assert b"Content-Length" not in writer.whole(204, "", 0, close=False)
    assert writer.whole(599, "", 0, close=False).startswith(b"HTTP/1.1 599 Unknown\r\n")
    assert b"Transfer-Encoding: chunked" in writer.stream(200, "", chunked=True, close=False)
    assert b"Transfer-Encoding" not in writer.stream(200, "", chunked=False, close=True)


def test_dates_move_on(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ResponseHeadWriter()
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    first = writer.whole(200, "", 0, close=False)
    assert writer.whole(200, "", 0, close=False) == first
    monkeypatch.setattr(time, "time", lambda: 1001.0)
    assert writer.whole(200, "", 0, close=False) != first


async def test_a_defect_in_one_check_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class HasDeadline:
        """Something to look after, which counts the looks."""

        def __init__(self, *, broken: bool) -> None:
            self.broken = broken
            self.looks = 0

        def check(self, now: float) -> None:
            assert now > 0
            self.looks += 1
            if self.broken:
                raise ZeroDivisionError

    good, broken = HasDeadline(broken=False), HasDeadline(broken=True)
    deadlines = DeadlineChecker(tick_seconds=0.01)
    deadlines.add(broken)
    deadlines.add(good)
    deadlines.start()
    await asyncio.sleep(0.05)
    deadlines.discard(broken)
    deadlines.stop()
    deadlines.stop()
    assert good.looks >= 2
    assert "a timeout check failed" in caplog.text


def test_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = server.listen("127.0.0.1", 0)
    assert sockets[0].proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's delays on
    port = sockets[0].getsockname()[1]
    with pytest.raises(LaunchError, match=str(port)):
        server.listen("127.0.0.1", port)
    for sock in sockets:
        sock.close()
    both = server.listen("localhost", 0)
    for sock in both:
        sock.close()


def test_what_is_found_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make_box(tmp_path, {"limits": {"store_password_env": "STORE_PASSWORD"}})
    found = read_runtime_inputs(box.shot, {"STORE_PASSWORD": "s3cret"})
    assert found.engine_key.startswith("engine-key")
    assert found.store_password == "s3cret"
    monkeypatch.setattr("importlib.metadata.version", lambda name: (_ for _ in ()).throw(importlib_not_found(name)))
    assert read_runtime_inputs(box.shot, {}).engine_version == "unknown"
    box.shot.locations.run.engine_key.unlink()
    with pytest.raises(LaunchError, match="engine's key"):
        read_runtime_inputs(box.shot, {})


def importlib_not_found(name: str) -> Exception:
    """Return what importlib.metadata raises for a package that is not there."""
    import importlib.metadata

    return importlib.metadata.PackageNotFoundError(name)


async def test_a_key_that_expires_stops_working_on_an_open_connection(start: Start) -> None:
    running = await start()
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5)
    await asyncio.to_thread(running.box.write_keys, [key_record("brief", KEY, expires=soon)])
    await running.gateway.keys.reload_now()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    request = request_bytes("POST", "/v1/chat/completions", body=chat())
    writer.write(request)
    assert (await read_answer(reader)).status == 200
    await asyncio.sleep(0.6)
    writer.write(request)
    assert (await read_answer(reader)).status == 401
    writer.close()


async def test_a_defect_in_the_pipeline_is_a_500_and_the_log_has_the_traceback(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = await start()
    monkeypatch.setattr("llama_gguf.gateway.api.request_json.parse", lambda _: 1 / 0)
    answer = await running.chat()
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert "ZeroDivisionError" in caplog.text
    assert (await running.lines(1))[0]["outcome"] == "internal_error"


async def test_an_answer_nobody_takes_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_gguf.gateway.http1.connection.STALL_SECONDS", 0.1)
    running = await start()
    running.gateway.http_server.limits = HttpLimits(10_000_000, 64, 8192, 8192, 30, 30, keepalive_seconds=0.1)
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(tokens=1, event_bytes=30_000_000)))
    await running.lines(1)
    await running.until(lambda: not running.gateway.http_server.connections)
    writer.close()


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense"])
def test_properties_that_make_no_sense_are_the_engines_fault(body: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        present_props(body, "tiny")
    assert (caught.value.status, caught.value.code) == (502, "engine_protocol")


def test_unknown_properties_are_not_shown() -> None:
    assert json.loads(present_props(b'{"total_slots": 1, "new": "/models/x", "model_path": "/models/x"}', "tiny")) == {
        "model_alias": "tiny",
        "model_path": "tiny",
        "total_slots": 1,
    }
