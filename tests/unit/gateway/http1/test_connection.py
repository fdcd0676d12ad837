"""What goes wrong below the API: malformed, oversized, slow, smuggled and pipelined requests."""

from __future__ import annotations

import asyncio
import json

import pytest

from llama_gguf.gateway.http1.connection import HttpServer
from llama_gguf.gateway.http1.header_rules import HttpLimits
from llama_gguf.gateway.http1.write_batch import WriteBatch
from llama_gguf.open_connections import ConnectionLimits
from support.gateway_box import KEY, key_record
from support.http_client import Answer, exchange, read_answer, request_bytes
from support.running_gateway import Running, Start, chat

AUTH = f"Authorization: Bearer {KEY}\r\n".encode()
CHUNKS = b'30\r\n{"messages":[{"role":"user","content":"hello"}]}\r\n0\r\n\r\n'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + AUTH

MALFORMED = {
    "both lengths": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, other order": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "hex length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "huge length": POST + b"Content-Length: 99999999999999999999999999\r\n\r\n",
    "empty length": POST + b"Content-Length: \r\n\r\n",
    "folded header": POST + b"X-A: one\r\n two\r\nContent-Length: 0\r\n\r\n",
    "blank before the colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "header without colon": POST + b"nonsense\r\n\r\n",
    "empty header name": POST + b": x\r\n\r\n",
    "NUL in a header": POST + b"X-A: a\0b\r\n\r\n",
    "CR in a header": POST + b"X-A: a\rb\r\n\r\n",
    "bare line feeds": b"GET /ping HTTP/1.1\nHost: a\n\n",
    "no version": b"GET /ping\r\nHost: a\r\n\r\n",
    "odd version": b"GET /ping HTTP/1.x\r\nHost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "control in the target": b"GET /pi\x01ng HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"GIMME /ping HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no host": b"GET /ping HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two keys": b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + AUTH + AUTH + b"\r\n",
    "unknown transfer coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked misspelt": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "obfuscated chunked": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
}
BAD_CHUNKS = {
    "negative": b"-1\r\n\r\n",
    "not hex": b"zz\r\nab\r\n",
    "overflow": b"fffffffffffffffff\r\nab",
    "too short": b"2\r\nabc\r\n0\r\n\r\n",
    "blank": b"\r\n\r\n",
    "0x": b"0x2\r\nab\r\n0\r\n\r\n",
    "blank before the size": b" 2\r\nab\r\n0\r\n\r\n",
    "bare line feed": b"2\nab\n0\n\n",
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_requests_get_400_and_the_connection_closes(running: Running, case: str) -> None:
    (answer,) = await exchange(running.port, MALFORMED[case])
    expected = (505, "http_version_not_supported") if case == "no version" else (400, "bad_request")
    assert (answer.status, answer.error["code"]) == expected
    assert answer.headers["connection"] == "close"
    assert not running.engine.asked


@pytest.mark.parametrize("case", BAD_CHUNKS)
async def test_bad_chunks_get_400_and_the_connection_closes(running: Running, case: str) -> None:
    (answer,) = await exchange(running.port, POST + b"Transfer-Encoding: chunked\r\n\r\n", BAD_CHUNKS[case], pause=0.05)
    assert answer.status == 400
    assert answer.error["code"] == "bad_request"
    assert answer.headers["connection"] == "close"
    assert not running.engine.asked


async def test_nothing_is_smuggled_behind_a_request(running: Running) -> None:
    inner = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + AUTH + b"\r\n"
    for framing in (
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
        b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n\r\n",
    ):
        (answer,) = await exchange(running.port, POST + framing + inner)
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
    assert not running.engine.asked


async def test_limits_on_the_head(start: Start) -> None:
    running = await start(
        {"gateway": {"max_headers": 16, "max_header_line_bytes": 1024, "max_request_line_bytes": 512}}
    )
    get = b"GET /ping HTTP/1.1\r\nHost: a\r\n"

    async def status(data: bytes) -> Answer:
        return (await exchange(running.port, data))[0]

    assert (await status(get + b"X: " + b"a" * 900 + b"\r\n\r\n")).status == 200
    long_line = await status(get + b"X: " + b"a" * 1100 + b"\r\n\r\n")
    assert (long_line.status, long_line.error["code"]) == (431, "header_fields_too_large")
    assert (await status(get + b"X-A: a\r\n" * 12 + b"\r\n")).status == 200
    assert (await status(get + b"".join(b"X-%d: a\r\n" % n for n in range(40)) + b"\r\n")).status == 431
    assert (await status(get.replace(b"/ping", b"/ping?" + b"q" * 400) + b"\r\n")).status == 200
    long_target = await status(get.replace(b"/ping", b"/ping?" + b"q" * 600) + b"\r\n")
    assert (long_target.status, long_target.error["code"]) == (414, "uri_too_long")
    endless_target = await status(b"GET /" + b"a" * 700)
    assert endless_target.status == 414
    endless_headers = await status(b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000)
    assert endless_headers.status == 431


async def test_a_body_over_the_limit_is_413_before_it_is_sent(start: Start) -> None:
    running = await start({"gateway": {"max_body_bytes": 2000}})
    (answer,) = await exchange(running.port, POST + b"Content-Length: 2001\r\n\r\n")
    assert (answer.status, answer.error["code"]) == (413, "payload_too_large")
    assert answer.headers["connection"] == "close"
    body = b'{"messages":[{"role":"user","content":"' + b"a" * 1950 + b'"}]}'
    assert len(body) < 2000
    (answer,) = await exchange(running.port, POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.status == 200


async def test_a_chunked_body_over_the_limit_is_413(start: Start) -> None:
    running = await start({"gateway": {"max_body_bytes": 2000}})
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    (answer,) = await exchange(running.port, head, *[b"3e8\r\n" + b"a" * 1000 + b"\r\n"] * 3, pause=0.01)
    assert (answer.status, answer.error["code"]) == (413, "payload_too_large")
    assert not running.engine.asked


async def test_a_chunked_body_is_relayed_whole(running: Running) -> None:
    data = request_bytes("POST", "/v1/chat/completions", body=chat())
    body = data.split(b"\r\n\r\n", 1)[1]
    half = len(body) // 2
    chunks = [b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:])]
    (answer,) = await exchange(
        running.port, POST + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\nX-Trailer: t\r\n\r\n", pause=0.02
    )
    assert answer.status == 200
    assert running.engine.asked[0].body == body
    assert running.engine.asked[0].headers["content-length"] == str(len(body))


async def test_expect_continue(running: Running) -> None:
    data = request_bytes("POST", "/v1/chat/completions", body=chat(), headers={"Expect": "100-continue"})
    head, body = data.split(b"\r\n\r\n", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await read_answer(reader)).status == 200
    writer.close()


@pytest.mark.parametrize("streams", [False, True])
async def test_http_1_0_gets_an_answer_it_can_read(running: Running, streams: bool) -> None:
    data = request_bytes("POST", "/v1/chat/completions", body=chat(stream=streams)).replace(b"HTTP/1.1", b"HTTP/1.0")
    (answer,) = await exchange(running.port, data)
    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers
    assert answer.body.endswith(b"data: [DONE]\n\n" if streams else b"}")


async def test_head_has_no_body(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await read_answer(reader, head_only=True)
    assert answer.status == 200
    writer.write(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await read_answer(reader)).status == 200
    writer.close()


async def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    ids = [f"id-{number}" for number in range(8)]
    data = b""
    for number, identity in enumerate(ids):
        request = request_bytes(
            *(("POST", "/v1/chat/completions") if number % 2 else ("GET", "/ping")),
            body=chat(stream=number == 3) if number % 2 else None,
            headers={"X-Request-Id": identity},
        )
        data += request
    answers = await exchange(running.port, data, answers=8)
    assert [answer.headers["x-request-id"] for answer in answers] == ids
    assert {answer.status for answer in answers} == {200}


async def test_requests_cut_at_every_byte_are_the_same_requests(running: Running) -> None:
    data = request_bytes("POST", "/v1/chat/completions", body=chat(), headers={"X-Request-Id": "cut"})
    for at in range(1, len(data), 7):
        answers = await exchange(running.port, data[:at], data[at:], pause=0.001)
        assert answers[0].status == 200
    (answer,) = await exchange(running.port, *[data[at : at + 1] for at in range(len(data))], pause=0.0001)
    assert answer.status == 200


async def test_two_heads_are_not_mixed_up_on_one_connection(running: Running) -> None:
    good = request_bytes("POST", "/v1/chat/completions", body=chat())
    bad = request_bytes("POST", "/v1/chat/completions", body=chat(), key="sk-" + "0" * 40)
    answers = await exchange(running.port, good + bad + good + good, answers=4)
    assert [answer.status for answer in answers] == [200, 401, 200, 200]


async def test_a_refused_head_is_refused_again_and_its_key_works_once_it_is_good(running: Running) -> None:
    late = "sk-late-" + "l" * 30
    request = request_bytes("POST", "/v1/chat/completions", body=chat(), key=late)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for _ in range(3):
        writer.write(request)
        answer = await read_answer(reader)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    await asyncio.to_thread(running.box.write_keys, [key_record("late", late)])
    await running.gateway.keys.reload_now()
    writer.write(request)
    assert (await read_answer(reader)).status == 200
    writer.close()
    assert [line["status"] for line in await running.lines(4)] == [401, 401, 401, 200]


async def test_empty_lines_before_a_request_are_let_pass(running: Running) -> None:
    (answer,) = await exchange(running.port, b"\r\n\r\nGET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status == 200


async def test_connection_close_is_honoured(running: Running) -> None:
    for target, body in (("/ping", None), ("/v1/chat/completions", chat(stream=True))):
        method = "POST" if body else "GET"
        data = request_bytes(method, target, body=body, headers={"Connection": "close"})
        (answer,) = await exchange(running.port, data)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"


async def test_a_slow_head_is_408(start: Start) -> None:
    running = await start({"gateway": {"timeouts": {"header_seconds": 0.3}}})
    (answer,) = await exchange(running.port, b"GET /ping HTTP/1.1\r\nHo", pause=0.1)
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    assert await asyncio.wait_for(reader.read(), 3) == b""  # nothing was asked, so nothing is answered
    writer.close()


async def test_a_slow_body_is_408(start: Start) -> None:
    running = await start({"gateway": {"timeouts": {"body_seconds": 0.3}}})
    (answer,) = await exchange(running.port, POST + b"Content-Length: 100\r\n\r\n{", pause=0.1)
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"
    assert (await running.lines())[0]["status"] == 408


async def test_a_client_that_leaves_in_its_body_is_recorded(running: Running) -> None:
    for framing in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"):
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(POST + framing)
        await running.until(lambda: running.gateway.pipeline.in_flight == 1)
        writer.close()
        await running.until(lambda: running.gateway.pipeline.in_flight == 0)
    assert [line["outcome"] for line in await running.lines(2)] == ["client_gone", "client_gone"]


async def test_a_compressed_body_is_refused(running: Running) -> None:
    answer = await running.ask("POST", "/v1/chat/completions", body=chat(), headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")


async def test_a_refused_upload_still_gets_its_answer(running: Running) -> None:
    """The body is larger than the socket's buffers: a reset instead of a close would destroy the answer."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(head + b"x" * 4_000_000)
    answer = await read_answer(reader)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    writer.close()


async def test_other_expectations_are_417(running: Running) -> None:
    answer = await running.ask("GET", "/ping", headers={"Expect": "200-ok"})
    assert (answer.status, answer.error["code"]) == (417, "expectation_failed")


async def test_a_target_with_scheme_and_host_is_taken(running: Running) -> None:
    (answer,) = await exchange(running.port, b"GET http://a/ping?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status == 200


async def test_what_follows_a_chunked_body_is_not_taken_for_a_request(running: Running) -> None:
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS
    (answer,) = await exchange(running.port, chunked + b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    answers = await exchange(running.port, chunked, chunked, pause=0.1, answers=2)
    assert [answer.status for answer in answers] == [200, 200]


async def test_upgrade_requests_are_answered_as_if_they_had_not_asked(running: Running) -> None:
    (answer,) = await exchange(
        running.port, b"GET /ping HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    assert answer.status == 200


HEADS = {
    "two lengths": (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "invalid_request_error"),
    "too large": (b"Content-Length: 999999999999\r\n\r\n", 413, "request_too_large"),
    "compressed": (b"Content-Length: 3\r\nContent-Encoding: gzip\r\n\r\n", 415, "invalid_request_error"),
    "expectation": (b"Content-Length: 3\r\nExpect: more\r\n\r\n", 417, "invalid_request_error"),
    "a long header": (b"X: " + b"y" * 9000 + b"\r\n\r\n", 431, "invalid_request_error"),
    "headers without end": (b"X: y\r\n" * 20_000, 431, "invalid_request_error"),
}


@pytest.mark.parametrize("case", HEADS)
@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/messages/count_tokens?beta=true"])
async def test_bad_heads_on_anthropics_routes_fail_in_its_shape(running: Running, path: bytes, case: str) -> None:
    rest, status, kind = HEADS[case]
    (answer,) = await exchange(running.port, b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n" + AUTH + rest)
    assert answer.status == status
    assert_anthropic(answer, kind)
    line = (await running.lines())[0]
    assert line["route"].startswith("/v1/messages")


async def test_other_failures_before_the_route_is_looked_at_are_in_anthropics_shape(start: Start) -> None:
    running = await start({"gateway": {"timeouts": {"header_seconds": 0.3, "body_seconds": 0.3}}})
    post = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n" + AUTH
    (slow_head,) = await exchange(running.port, post)
    assert_anthropic(slow_head, "invalid_request_error")
    (slow_body,) = await exchange(running.port, post + b"Content-Length: 9\r\n\r\n")
    assert_anthropic(slow_body, "invalid_request_error")
    assert (slow_head.status, slow_body.status) == (408, 408)
    (long_line,) = await exchange(running.port, b"POST /v1/messages?" + b"x" * 9000)
    assert long_line.status == 414
    assert_anthropic(long_line, "invalid_request_error")
    (bad_chunk,) = await exchange(running.port, post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert_anthropic(bad_chunk, "invalid_request_error")
    for method, path, status in (("GET", "/v1/messages", 405), ("POST", "/v1/messages/batches", 404)):
        answer = await running.ask(method, path)
        assert answer.status == status
        assert_anthropic(answer, "not_found_error" if status == 404 else "invalid_request_error")


def assert_anthropic(answer: Answer, kind: str) -> None:
    value = answer.json()
    assert (value["type"], value["error"]["type"]) == ("error", kind)
    assert value["error"]["message"]
    assert value["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_java_that_offers_http_2_is_answered_in_http_1_1(running: Running, chunked: bool) -> None:
    """Its HttpClient does so with each first request; RFC 9110, 7.8: a server may ignore Upgrade."""
    head = POST + (
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
        b"Upgrade: h2c\r\nContent-Type: application/json\r\n"
    )
    body = json.dumps(chat()).encode()
    framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    request = head + (framed if chunked else b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for pause_at in (len(request), len(head) + 90, len(request) - 3):
        writer.write(request[:pause_at])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(request[pause_at:])
        answer = await read_answer(reader)
        assert answer.status == 200
        assert not {"upgrade", "connection"} & set(answer.headers)
    writer.close()
    assert [json.loads(seen.body)["messages"] for seen in running.engine.asked] == [chat()["messages"]] * 3


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        CHUNKS + b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + AUTH + b"\r\n",
    ],
)
async def test_nothing_is_smuggled_behind_an_upgrade(running: Running, rest: bytes) -> None:
    head = POST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n"
    (answer,) = await exchange(running.port, head + rest)
    assert answer.headers["connection"] == "close"
    assert not [seen for seen in running.engine.asked if seen.target == "/v1/models"]


OTHER_PROTOCOLS = {
    "RTSP": b"OPTIONS rtsp://a/ping RTSP/1.0\r\nCSeq: 1\r\nHost: a\r\n\r\n",
    "RTSP, a route of ours": b"GET /ping RTSP/1.0\r\nHost: a\r\n\r\n",
    "RTSP, its first line": b"DESCRIBE rtsp://a/ RTSP/1.0\r\n",
    "ICE": b"SOURCE /live ICE/1.0\r\nHost: a\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "SMTP": b"EHLO example.com\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "SOCKS": b"\x05\x01\x00",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", OTHER_PROTOCOLS)
async def test_other_protocols_are_refused_at_once(start: Start, name: str) -> None:
    running = await start({"gateway": {"timeouts": {"header_seconds": 3600}}})
    (answer,) = await exchange(running.port, OTHER_PROTOCOLS[name])
    assert answer.status in (400, 505)
    assert answer.error["code"] in ("bad_request", "http_version_not_supported")
    assert answer.headers["connection"] == "close"


async def test_tls_on_the_plain_port_is_logged_once(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        (answer,) = await exchange(running.port, OTHER_PROTOCOLS["TLS"])
        assert "plain HTTP" in answer.error["message"]
    assert [record.message for record in caplog.records if "TLS" in record.message] == [
        "a client speaks TLS to the plain HTTP port: use http://, or put a TLS proxy in front"
    ]


async def test_connections_that_ask_for_nothing_give_way(running: Running) -> None:
    """Each new one is served, those that generate stay, and the oldest idle ones of the peer are closed."""
    limits = ConnectionLimits(in_all=8, per_peer=4)
    server = HttpServer(
        running.gateway.pipeline, HttpLimits(1000, 64, 8192, 8192, 3600, 3600), WriteBatch(), idle_limits=limits
    )
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    busy_reader, busy = await asyncio.open_connection("127.0.0.1", port)
    busy.write(request_bytes("POST", "/v1/chat/completions", body=chat(hang_after=-1)))
    await running.until(lambda: bool(running.engine.asked))
    idle = []
    for begin in (b"", b"GET /ping HTTP/1.1\r\nX: ", b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n") * 5:
        idle.append((await asyncio.open_connection("127.0.0.1", port))[1])
        idle[-1].write(begin)
        (answer,) = await exchange(port, b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.status == 200
    await running.until(lambda: len(server.connections) <= 5)
    assert not busy_reader.at_eof()
    for writer in (*idle, busy):
        writer.close()
    server.abort_all()
    listening.close()


async def test_a_peer_without_idle_connections_is_forgotten(running: Running) -> None:
    for _ in range(3):
        await exchange(running.port, b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
    await running.until(lambda: not running.gateway.http_server.connections)
    assert not running.gateway.http_server._per_peer


@pytest.mark.parametrize("begin", [b"0\r\nX: ", b"0\r\n", b"2;"])
async def test_framing_without_end_is_refused(running: Running, begin: bytes) -> None:
    more = b"X: y\r\n" * 20_000 if begin == b"0\r\n" else b"y" * 120_000
    head = b"GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with asyncio.timeout(3):
        (answer,) = await exchange(running.port, head + begin + more)
    assert answer.status == 400
