"""How many instructions one request costs the gateway: what tells small steps that a clock cannot.

Drives the gateway's protocol with a client and an engine that are objects of the same process, their few instructions
included, under valgrind (`--tool=cachegrind`): once for N requests and once for 2 N; the difference is the requests'.
Equal to some tenths of a per cent between runs, so 1 % is visible.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

REQUESTS = 512
BATCH = 64
_BODY = b'{"model":"tiny","messages":[{"role":"user","content":"Write one sentence about the sea."}],"max_tokens":16%b}'
_TIMINGS = b'"timings":{"cache_n":0,"prompt_n":12,"predicted_n":16,"predicted_per_second":100.5}'
_PLAIN = b'{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"%b"}}],%b}' % (
    b"The sea is wide. " * 8,
    _TIMINGS,
)
_EVENT = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"sea "}}],"object":"chunk"}\n\n'
_LAST = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],%b}\n\n' % _TIMINGS
EVENTS = 16
CASES = ("plain", "stream", "refused")


class Engine(asyncio.Protocol):
    """Answers each request on its socket at once: whole, or with `EVENTS` events of a chunk each."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET"):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        elif b'"stream":true' in data:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            self._transport.write(b"Transfer-Encoding: chunked\r\n\r\n")
            asyncio.get_running_loop().call_soon(self._event, EVENTS)
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_PLAIN)
            self._transport.write(head + _PLAIN)

    def _event(self, left: int) -> None:
        if left:
            self._transport.write(_chunk(_EVENT))
            asyncio.get_running_loop().call_soon(self._event, left - 1)
        else:
            self._transport.write(_chunk(_LAST) + b"0\r\n\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Client(asyncio.Transport):
    """The other side of a client's connection: sets `answered` when the end of a response has been written."""

    def __init__(self, end: bytes) -> None:
        super().__init__()
        self._end = end
        self.answered = asyncio.Event()
        self.answer = b""

    def write(self, data: Any) -> None:
        self.answer += data
        if data.endswith(self._end):
            self.answered.set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 40000) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered."""

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        """Nothing was paused."""

    def close(self) -> None:
        raise AssertionError("the gateway closed the connection")


def _request(case: str, key: str) -> bytes:
    body = _BODY % (b',"stream":true' if case == "stream" else b"")
    sent = "" if case == "refused" else key  # a wrong one is answered 401 only some times in a row
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {sent}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _drive(root: Path, case: str, requests: int) -> None:
    from llama_gguf.gateway.app import Gateway
    from llama_gguf.gateway.inputs import RuntimeInputs
    from llama_gguf.gateway.telemetry import recorder
    from support.gateway_box import KEY, make_box

    recorder.FLUSH_SECONDS = 3600.0
    box = make_box(root)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(Engine, str(box.socket))
    gateway = Gateway(box.shot, RuntimeInputs({"engine": "engine-key"}, "0", "host"), access_stream=io.BytesIO())
    await gateway.start()
    while gateway.backends.first.engine.state != "ready":  # noqa: ASYNC110 - it has no event for others
        await asyncio.sleep(0.01)
    # What the clock brings on differs from run to run: only requests are counted, and their records in batches.
    gateway.deadlines.stop()
    await gateway.backends.first.engine.stop()
    await gateway.keys.stop()
    gc.collect()
    gc.freeze()
    gc.disable()
    client = Client({"plain": b"}", "stream": b"0\r\n\r\n", "refused": b"}"}[case])
    protocol = gateway.protocol()
    protocol.connection_made(client)
    request = _request(case, KEY)
    status = b"HTTP/1.1 401 " if case == "refused" else b"HTTP/1.1 200 "
    for number in range(requests):
        if not number % BATCH:
            gateway._recorder.flush()
        client.answered.clear()
        client.answer = b""
        protocol.data_received(request)
        await client.answered.wait()
        if not client.answer.startswith(status):
            raise AssertionError(client.answer)
    gateway._recorder.flush()
    server.close()
    os._exit(0)  # the end of the process is no request's


def _count(case: str, requests: int) -> int:
    """Return the instructions of a process that answers so many requests."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        command += [sys.executable, __file__, "--child", folder, case, str(requests)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    found = re.search(r"I\s+refs:\s+([\d,]+)", result.stderr)
    if result.returncode or found is None:
        sys.exit(result.stderr)
    return int(found[1].replace(",", ""))


def main() -> None:
    """Print the instructions of one request of each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "CASE", "N"), help="answer N requests in this process")
    arguments = parser.parse_args()
    if arguments.child:
        folder, case, requests = arguments.child
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_drive(Path(folder), case, int(requests)))
    for case in CASES:
        one, two = (_count(case, times * arguments.requests) for times in (1, 2))
        each = (two - one) / arguments.requests
        print(f"{case:8} {each:12,.0f} instructions a request")  # noqa: T201


if __name__ == "__main__":
    main()
