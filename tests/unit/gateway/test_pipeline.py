"""What holds for every request: its id, keys that expire while a connection is open, and a defect of ours."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from typing import Any

import pytest

from llama_gguf.gateway.api.wrong_keys import BURST, SECONDS_EACH
from llama_gguf.gateway.pipeline import request_id
from support.gateway_box import ADMIN_KEY, KEY, default_keys, key_record
from support.http_client import read_answer, request_bytes
from support.running_gateway import Running, Start, body_of, chat


def test_request_ids() -> None:
    assert request_id(b"ok-1") == "ok-1"
    for bad in (b"", b"a b", b"a\x00", b"a" * 200, b"\xff", None):
        assert re.fullmatch(r"[0-9a-f]{32}", request_id(bad))


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
    monkeypatch.setattr("llama_gguf.gateway.request.reader.read_json", lambda *_: 1 / 0)
    answer = await running.chat()
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert "ZeroDivisionError" in caplog.text
    assert (await running.lines(1))[0]["outcome"] == "internal_error"


async def test_a_revoked_key_stops_working_on_an_open_connection(running: Running) -> None:
    """The head of the second request is byte for byte the first one's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    request = request_bytes("POST", "/v1/chat/completions", body=chat())
    for _ in range(2):
        writer.write(request)
        assert (await read_answer(reader)).status == 200
    await asyncio.to_thread(running.box.write_keys, default_keys()[1:])
    assert (await running.ask("POST", "/reload", key=ADMIN_KEY)).status == 200
    writer.write(request)
    assert (await read_answer(reader)).status == 401
    writer.close()


async def test_without_auth_everybody_may_infer_and_nobody_is_admin(start: Start) -> None:
    running = await start({"auth": {"enabled": False}})
    assert (await running.ask("POST", "/v1/chat/completions", body=chat(), key=None)).status == 200
    assert (await running.ask("GET", "/slots", key=ADMIN_KEY)).status == 403
    assert (await running.lines(1))[0]["key"] == "anonymous"


async def test_no_keys_file_closes_everything(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.gateway_box.Box.write_keys", lambda *_: None)
    running = await start()
    for key in (KEY, ADMIN_KEY, "", "sk-" + "0" * 40):
        assert (await running.ask("GET", "/v1/models", key=key or None)).status == 401


async def test_an_extra_header_may_carry_the_key(start: Start) -> None:
    running = await start({"auth": {"extra_header": "X-Runpod-Key"}})
    answer = await running.ask("GET", "/v1/models", key="taken-by-the-platform", headers={"X-Runpod-Key": KEY})
    assert answer.status == 200


async def test_request_ids_are_taken_if_sane_and_made_if_not(running: Running) -> None:
    for sent, kept in (("abc-123", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ('"quoted"', False)):
        answer = await running.ask("GET", "/ping", headers={"X-Request-Id": sent})
        assert (answer.headers["x-request-id"] == sent) is kept
    ids = {(await running.ask("GET", "/ping")).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


FAILURES: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/nope", {}, 404),
    ("PUT", "/v1/models", {}, 405),
    ("POST", "/v1/chat/completions", {"key": None, "body": {}}, 401),
    ("POST", "/v1/chat/completions", {"body": b"{"}, 400),
    ("POST", "/v1/chat/completions", {"body": chat(status=500)}, 500),
    ("POST", "/v1/chat/completions", {"body": chat(die_after=-1)}, 502),
    ("GET", "/slots", {}, 403),
    ("POST", "/v1/embeddings", {"body": b""}, 400),
]


@pytest.mark.parametrize(("method", "path", "options", "status"), FAILURES)
async def test_every_failure_has_the_same_shape(
    running: Running, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    answer = await running.ask(method, path, **options)
    assert answer.status == status
    assert answer.error["code"]
    assert answer.headers["x-request-id"]


async def test_a_flood_of_wrong_keys_is_slowed_and_a_valid_key_from_there_works(running: Running) -> None:
    wrong = request_bytes("GET", "/v1/models", key="sk-wrong-0000000000000000000000")
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for _ in range(BURST):
        writer.write(wrong)
        answer = await read_answer(reader)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    writer.write(wrong)
    slowed = await read_answer(reader)
    assert (slowed.status, slowed.error["code"]) == (429, "too_many_invalid_keys")
    assert slowed.headers["connection"] == "close"
    assert slowed.headers["x-should-retry"] == "false"
    assert 1 <= int(slowed.headers["retry-after"]) <= SECONDS_EACH
    assert await reader.read() == b""  # each further guess costs a connection
    writer.close()
    for headers in ({}, {"X-Forwarded-For": "192.0.2.1"}):  # which anybody can send
        assert (await running.ask("GET", "/v1/models", key="sk-wrong-00000000000", headers=headers)).status == 429
    assert (await running.ask("GET", "/v1/models")).status == 200
    assert (await running.ask("GET", "/v1/models", key=None)).status == 401  # none is no guess
    assert (await running.ask("GET", "/ping", key="sk-wrong-00000000000")).status == 200
    assert not [seen for seen in running.engine.asked if seen.target != "/v1/models"]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/messages"])
async def test_a_websocket_handshake_is_told_to_use_http(running: Running, path: str) -> None:
    """Codex opens one first, and goes on over HTTP when it gets 426."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request_bytes("GET", path, headers=handshake))
    answer = await read_answer(reader)
    assert answer.status == 426
    assert answer.json()["error"]["message"] == "There is no WebSocket here; send the request by POST over HTTP/1.1."
    assert answer.headers["upgrade"] == "HTTP/1.1"
    assert answer.headers["connection"] == "Upgrade"
    writer.write(request_bytes("POST", path, body=body_of(path)))
    assert (await read_answer(reader)).status == 200
    writer.close()
    assert (await running.ask("GET", path)).status == 405
    assert (await running.ask("GET", "/v1/realtime", headers=handshake)).status == 404
