"""One line a request: facts, never prompts or keys, and no way to forge one."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import Any

import pytest

from llama_gguf.gateway import access_log
from llama_gguf.gateway.access_log import AccessLog, json_line, text_line
from llama_gguf.gateway.exchange import Exchange, Request, RequestHead
from llama_gguf.gateway.routes import ROUTES
from llama_gguf.gateway.sse import Tokens
from support.gateway_box import KEY, key_record
from support.running_gateway import Start, chat

STAMP = "2026-01-01T00:00:00.000Z"


def exchange(path: str = "/x", method: str = "GET", **changes: Any) -> Exchange:
    made = Exchange(Request(RequestHead(method, path, {}), peer="10.0.0.1"), None, "id-1", 100.0)  # type: ignore[arg-type]
    for name, value in changes.items():
        setattr(made, name, value)
    made.ended = changes.get("ended", 101.0)
    return made


def test_a_full_line() -> None:
    line = json_line(
        exchange(
            method="POST",
            route=ROUTES[0],
            key=key_record("alice", KEY),
            model='we"ird',
            status=200,
            stream=True,
            queued_seconds=0.0123,
            first_byte=100.5,
            bytes_sent=77,
            tokens=Tokens(5, 2, 3, finish_reason="stop"),
        ),
        STAMP,
    )
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "ts": STAMP,
        "level": "info",
        "program": "gateway",
        "event": "request",
        "request_id": "id-1",
        "key": "alice",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "outcome": "ok",
        "error": None,
        "model": 'we"ird',
        "stream": True,
        "queue_ms": 12.3,
        "ttft_ms": 500.0,
        "total_ms": 1000.0,
        "bytes": 77,
        "tokens_in": 5,
        "tokens_cached": 2,
        "tokens_out": 3,
        "finish": "stop",
        "peer": "10.0.0.1",
    }


@pytest.mark.parametrize(
    "path", ["/a\nb", '/a"b', "/a\\b", "/a|b c", "/\x1b[31m", "/\u2028", "/\x85", "/é", "/" + "a" * 9000, "/\udcff"]
)
def test_paths_of_clients_cannot_forge_lines(path: str) -> None:
    made = exchange(path, status=404)
    line = json_line(made, STAMP)
    assert line.count(b"\n") == 1
    assert len(json.loads(line)["route"]) <= 256
    text = text_line(made, STAMP)
    assert text.count(b"\n") == 1
    assert len(text.split(b" | ")) == 5
    assert b"\x1b" not in text
    assert "\u2028" not in text.decode()


def test_a_text_line() -> None:
    text = text_line(exchange("/a b", status=0, outcome="client_gone", ended=100.25), STAMP).decode()
    assert text.startswith(f"{STAMP} | INFO | gateway | request | request_id=id-1 key=- method=GET route=/a_b status=-")
    assert "outcome=client_gone" in text
    assert "total_ms=250.0" in text
    assert "stream=no" in text


async def test_text_through_the_gateway_holds_no_secret(start: Start) -> None:
    running = await start({"logging": {"format": "text"}})
    await running.ask("POST", "/v1/chat/completions", body={**chat(), "messages": [{"content": "my-secret-prompt"}]})
    await running.until(lambda: b"request" in running.log_bytes())
    log = running.log_bytes()
    assert b"my-secret-prompt" not in log
    assert KEY.encode() not in log
    assert b"key=tester" in log


async def test_the_access_log_can_be_off(start: Start) -> None:
    running = await start({"logging": {"access_log": False}})
    await running.chat()
    await asyncio.sleep(0.2)
    assert running.log_bytes() == b""


class Stuck(io.BytesIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, data: Any) -> int:
        self.free.wait(10)
        return super().write(data)


async def test_a_stuck_stream_stops_nobody_and_costs_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access_log, "MAX_BATCHES", 5)
    stream = Stuck()
    log = AccessLog(stream, format="json")
    log.start()
    for _ in range(50):
        log.write([exchange(status=200)])
        await asyncio.sleep(0.003)
    assert log.dropped > 10
    stream.free.set()
    await log.stop()
    assert 1 <= stream.getvalue().count(b"\n") < 50
    assert "dropped" in caplog.text


async def test_a_closed_stream_does_no_harm() -> None:
    stream = io.BytesIO()
    stream.close()
    log = AccessLog(stream, format="json")
    log.start()
    log.write([exchange(status=200)])
    await log.stop()
    assert log.dropped == 1
