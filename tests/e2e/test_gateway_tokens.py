"""What is charged against what the real engine says it did: whole answers, and answers left at random moments.

The engine counts everything, answers that were cut included, in its own /metrics. It adds an answer when it lets go of
the slot, so nothing is read before it is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.gateway_box import Box, busy_slots, engine_get, make_box, stopping, wait_until
from support.http_client import ask, read_answer, request_bytes
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine

CONTEXT = 4096
SLOTS = 2
LETTERS = "root ::= [a-z] root"  # the random model's bytes make half characters, which are no events of a stream
COUNTED = re.compile(rb"^llamacpp:(prompt_tokens|prompt_tokens_cached|tokens_predicted)_total (\d+)", re.MULTILINE)
TEXT = {"role": "user", "content": "hello there"}


def bodies(tokens: int) -> dict[str, dict[str, Any]]:
    """Return a request for each generating route; a byte is a token of the random model."""
    extra = {"cache_prompt": False}
    chat: dict[str, Any] = {"messages": [TEXT], "max_tokens": tokens, **extra}
    native: dict[str, Any] = {"n_predict": tokens, **extra}
    return {
        "/v1/chat/completions": chat,
        "/v1/completions": {"prompt": "hello there", "max_tokens": tokens, **extra},
        "/v1/responses": {"input": "hello there", "max_output_tokens": tokens, **extra},
        "/v1/messages": chat,
        "/completion": {"prompt": "hello there", **native},
        "/infill": {"input_prefix": "def f(", "input_suffix": ")", **native},
    }


PATHS = tuple(bodies(1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "long.gguf", context=CONTEXT, layers=24)


def serve(root: Path, binary: Path, model: Path, *arguments: str) -> Iterator[Box]:
    box = make_box(root, {"engine": {"slots": SLOTS, "context_per_slot": CONTEXT}, "gateway": {"routes": ROUTES}})
    # One thread waits for no other; two do at every layer, which on a busy machine takes a hundred times as long.
    sizes = ("--ctx-size", str(CONTEXT * SLOTS), "--parallel", str(SLOTS), "--threads", "1")
    engine = box.start_engine(binary, model, *sizes, *arguments)
    with stopping(engine):
        gateway = box.start_gateway()
        with stopping(gateway):
            yield box


ROUTES = ["chat", "completions", "responses", "messages", "embeddings", "infill", "audio", "props"]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, model: Path) -> Iterator[Box]:
    yield from serve(tmp_path_factory.mktemp("tokens"), engine_binary, model, "--grammar", LETTERS)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, model: Path) -> Iterator[Box]:
    arguments = ("--embeddings", "--pooling", "mean", "--batch-size", "2048", "--ubatch-size", "2048")
    yield from serve(tmp_path_factory.mktemp("embed"), engine_binary, model, *arguments)


def of_engine(box: Box) -> tuple[int, int]:
    """Return prompt tokens (cached ones included) and generated tokens since the engine's start, once it is idle."""
    wait_until(lambda: busy_slots(box.socket) == 0, 300)
    _, text = engine_get(box.socket, "/metrics")
    found = {name.decode(): int(value) for name, value in COUNTED.findall(text)}
    return found["prompt_tokens"] + found.get("prompt_tokens_cached", 0), found["tokens_predicted"]


def of_gateway(box: Box, requests: int) -> tuple[int, int]:
    """Return the same of the gateway's access log, once all requests are in it."""
    wait_until(lambda: len(access(box)) >= requests, 150, lambda: f"{requests} lines\n{box.log[-3000:]}")
    lines = access(box)
    return sum(line["tokens_in"] or 0 for line in lines), sum(line["tokens_out"] or 0 for line in lines)


def access(box: Box) -> list[dict[str, Any]]:
    return [line for line in box.access_lines() if line["route"] != "/livez"]


class Difference:
    """What engine and gateway count for the requests made inside a `with`."""

    def __init__(self, box: Box, requests: int) -> None:
        self.box = box
        self.requests = requests
        self.engine = self.gateway = (0, 0)

    def __enter__(self) -> Difference:
        time.sleep(0.3)  # the log comes in batches
        self._lines = len(access(self.box))
        self._before = of_engine(self.box), of_gateway(self.box, self._lines)
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            now = of_engine(self.box), of_gateway(self.box, self._lines + self.requests)
            self.engine = now[0][0] - self._before[0][0], now[0][1] - self._before[0][1]
            self.gateway = now[1][0] - self._before[1][0], now[1][1] - self._before[1][1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
async def test_whole_answers_are_charged_exactly(box: Box, path: str, stream: bool) -> None:
    with Difference(box, 2) as counts:
        for _ in range(2):
            answer = await ask(box.port, "POST", path, body={**bodies(20)[path], "stream": stream})
            assert answer.status == 200
    assert counts.gateway == counts.engine
    assert counts.gateway[1] == 40


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "extra"),
    [
        ("/v1/chat/completions", {"n": 2}),
        ("/v1/completions", {"prompt": ["hello there", "you"]}),
        ("/v1/completions", {"prompt": ["hello there", "you"], "n": 2}),
        ("/completion", {"prompt": ["hello there", "you"]}),
        ("/completion", {"n_cmpl": 2}),
    ],
)
async def test_several_answers_in_one_are_charged_as_the_engine_counts_them(
    box: Box, path: str, extra: dict[str, Any], stream: bool
) -> None:
    body = {**bodies(12)[path], **extra, "stream": stream}
    if stream and len(extra) > 1:  # four in a stream, and two slots
        assert (await ask(box.port, "POST", path, body=body)).status == 400
        return
    with Difference(box, 1) as counts:
        answer = await ask(box.port, "POST", path, body=body)
        assert answer.status == 200
    assert counts.gateway == counts.engine
    if not stream and path != "/completion":
        usage = answer.json()["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == counts.engine
        assert usage["total_tokens"] == sum(counts.engine)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
async def test_answers_left_at_random_moments_are_charged_what_the_engine_did(
    box: Box, path: str, stream: bool
) -> None:
    rng = random.Random(path)
    number = 12
    with Difference(box, number) as counts:
        for _ in range(number):
            await leave(box, path, {**bodies(3000)[path], "stream": stream}, rng.uniform(0.0, 0.4))
    left = [line for line in access(box)[-number:] if line["outcome"] == "client_gone"]
    assert len(left) >= number // 2
    assert counts.engine[1] > number
    assert counts.gateway == counts.engine


async def test_many_left_at_once_are_charged_what_the_engine_did(box: Box) -> None:
    """Most of them while they wait for a slot."""
    number = 40
    body = {**bodies(3000)["/v1/chat/completions"], "messages": [{"role": "user", "content": "hello there " * 100}]}
    with Difference(box, number) as counts:
        await asyncio.gather(
            *(
                leave(
                    box,
                    "/v1/chat/completions",
                    {**body, "stream": index % 2 == 0, "n": 1 + index % 3 // 2},
                    0.02 * index,
                )
                for index in range(number)
            )
        )
    assert counts.gateway == counts.engine
    assert counts.engine[0] > 1000


async def leave(box: Box, path: str, body: dict[str, Any], seconds: float) -> None:
    """Make one request and go away after a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(request_bytes("POST", path, body=body))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await read_answer(reader)
    writer.close()
    await writer.wait_closed()


async def leave_at_work(box: Box, path: str, body: dict[str, Any], seconds: float) -> None:
    """Make one request and go away a while after the engine has begun to work on it."""
    wait_until(lambda: busy_slots(box.socket) == 0, 300)
    _, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(request_bytes("POST", path, body=body))
    await writer.drain()
    await asyncio.to_thread(wait_until, lambda: busy_slots(box.socket), 300)
    await asyncio.sleep(seconds)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/embedding"])
@pytest.mark.parametrize("texts", ["hello", ["hello", "you there"]])
async def test_embeddings_are_charged_what_the_engine_read(embedder: Box, path: str, texts: object) -> None:
    with Difference(embedder, 1) as counts:
        name = "input" if path.endswith("s") else "content"
        answer = await ask(embedder.port, "POST", path, body={name: texts})
        assert answer.status == 200
    assert counts.gateway == counts.engine


async def test_batches_of_embeddings_that_were_left_are_charged_what_the_engine_read(embedder: Box) -> None:
    """At any moment: while the engine still reads the request, and in the middle of its work."""
    rng = random.Random(5)
    body = {"input": ["hello there " * 40] * 300}
    with Difference(embedder, 14) as counts:
        for _ in range(8):
            await leave(embedder, "/v1/embeddings", body, rng.uniform(0.003, 0.06))
        for _ in range(6):
            await leave_at_work(embedder, "/v1/embeddings", body, rng.uniform(0.0, 0.3))
    assert counts.gateway == counts.engine
    assert 0 < counts.engine[0] < 14 * 300 * 640


async def test_properties_of_the_real_engine_hold_no_path(box: Box, model: Path) -> None:
    answer = await ask(box.port, "GET", "/props")
    assert answer.status == 200
    told = answer.json()
    assert told["model_path"] == told["model_alias"] == "tiny"
    assert told["total_slots"] == SLOTS
    assert "message.role" in told["chat_template"] or "m.role" in told["chat_template"]
    for secret in (str(model), model.name, str(box.root), "ui_settings"):
        assert secret not in json.dumps(told)


async def test_a_model_that_cannot_hear_says_so(box: Box) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--B--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    answer = await ask(box.port, "POST", "/v1/audio/transcriptions", body=body, headers=headers)
    assert (answer.status, answer.error["code"]) == (501, "not_supported")
    assert "audio" in answer.error["message"]


@pytest.fixture(scope="module")
def stammering(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, model: Path) -> Iterator[Box]:
    """Without a grammar most tokens of the random model are half characters, which make no event."""
    yield from serve(tmp_path_factory.mktemp("bytes"), engine_binary, model)


@pytest.mark.parametrize(
    ("path", "beginning"),
    [
        ("/v1/chat/completions", b'"delta":{"role":"assistant"'),
        ("/v1/responses", b"event: response.created\n"),
        ("/v1/messages", b"event: message_start\n"),
    ],
)
async def test_a_stream_begins_once_whatever_its_first_token_is(stammering: Box, path: str, beginning: bytes) -> None:
    late = 0
    for seed in range(12):
        body = {**bodies(30)[path], "stream": True, "seed": seed, "temperature": 2.0}
        answer = await ask(stammering.port, "POST", path, body=body)
        assert answer.body.count(beginning) == 1, answer.body
        assert answer.body.find(beginning) < 200
        late += "\ufffd" in answer.body.decode()
    assert late > 0
