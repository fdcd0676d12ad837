"""One line a request: facts, never prompts or keys, and no way to forge one."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import threading
import time
from typing import Any

import pytest

from llama_gguf.gateway.api.routes import ROUTES
from llama_gguf.gateway.exchange import Exchange, RequestKind, request_kind
from llama_gguf.gateway.http1.message import Request, RequestHead
from llama_gguf.gateway.telemetry import access_log
from llama_gguf.gateway.telemetry.access_log import AccessLog, common_fields, json_line, text_line
from llama_gguf.gateway.tokens.counts import Tokens
from support.gateway_box import KEY, key_record
from support.running_gateway import Start, chat

STAMP = "2026-01-01T00:00:00.000Z"


def exchange(path: str = "/x", method: str = "GET", **changes: Any) -> Exchange:
    made = Exchange(Request(RequestHead(method, path, {}), peer="10.0.0.1"), None, "id-1", 100.0)  # type: ignore[arg-type]
    for name, value in changes.items():
        setattr(made, name, value)
    made.ended = changes.get("ended", 101.0)
    return made


def as_json(made: Exchange) -> str:
    return json_line(made, common_fields(request_kind(made)), STAMP)


def as_text(made: Exchange) -> str:
    return text_line(made, common_fields(request_kind(made)), STAMP)


def test_a_full_line() -> None:
    line = as_json(
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
        )
    )
    assert line.endswith("}\n")
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
    line = as_json(made)
    assert line.count("\n") == 1
    assert len(json.loads(line)["route"]) <= 256
    text = as_text(made)
    assert text.count("\n") == 1
    assert len(text.split(" | ")) == 5
    assert "\x1b" not in text
    assert "\u2028" not in text


def test_a_text_line() -> None:
    text = as_text(exchange("/a b", status=0, outcome="client_gone", ended=100.25))
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


async def test_lines_are_in_the_order_in_which_requests_ended() -> None:
    stream = io.BytesIO()
    log = AccessLog(stream, format="json")
    log.start()
    now = time.monotonic()
    ended = [exchange(f"/{number % 3}", ended=now + number / 100, bytes_sent=number) for number in range(30)]
    kinds: dict[RequestKind, list[Exchange]] = {}
    for one in ended:
        kinds.setdefault(request_kind(one), []).append(one)
    assert len(kinds) == 3
    log.write(kinds)
    await log.stop()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["bytes"] for line in lines] == list(range(30))
    stamps = [dt.datetime.fromisoformat(line["ts"]) for line in lines]
    assert stamps == sorted(stamps)
    assert abs((stamps[0] - dt.datetime.now(dt.UTC)).total_seconds()) < 5


ONE = {request_kind(one): [one] for one in [exchange(status=200)]}


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
        log.write(ONE)
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
    log.write(ONE)
    await log.stop()
    assert log.dropped == 1
