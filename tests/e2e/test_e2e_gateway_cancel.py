"""A client that goes away frees its slot of the real engine within a second.

Routes times streamed or not times where the request is: waiting in the queue, reading its prompt, generating. The
engine's own /slots tell.

The gateway closes its connection to the engine at once in every case. llama-server notices that on a running stream
with its next token, but before the first token, and on a plain answer, only after a second in which it had no result
for anybody (`recv_with_timeout` starts its wait anew with every result, and an answer to /slots is one): there nobody
asks meanwhile.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.gateway_box import KEY, Box, busy_slots, make_box, stopping, wait_until
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine

CONTEXT = 32_768
FREE_SECONDS = 1.0
WORDS = "x" * 24_000  # a byte is a token of the random model: a second or two of prefill

LONG: dict[str, Any] = {"max_tokens": 30_000, "n_predict": 30_000, "ignore_eos": True}


def chat(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **LONG}


GENERATING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat("hi"),
    "/v1/completions": {"prompt": "hi", **LONG},
    "/v1/responses": {"input": "hi", "max_output_tokens": 30_000, **LONG},
    "/v1/messages": chat("hi"),
    "/infill": {"input_prefix": "def f(", "input_suffix": ")", **LONG},
}
PREFILLING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(WORDS),
    "/v1/completions": {"prompt": WORDS, **LONG},
    "/v1/responses": {"input": WORDS, "max_output_tokens": 30_000, **LONG},
    "/v1/messages": chat(WORDS),
    "/infill": {"input_prefix": WORDS, "input_suffix": ")", **LONG},
}
EMBEDDINGS: dict[str, Any] = {"input": [f"{number} " + "x" * 1500 for number in range(400)]}
RERANK: dict[str, Any] = {"query": "q", "documents": [f"{number} " + "x" * 1500 for number in range(400)]}


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with room for a long answer."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "long.gguf", context=CONTEXT)


def serve(root: Path, binary: Path, model: Path, *arguments: str) -> Iterator[Box]:
    """Run one engine with one slot, and a gateway in front of it."""
    box = make_box(root, {"engine": {"slots": 1, "context_per_slot": CONTEXT}})
    engine = box.start_engine(binary, model, "--ctx-size", str(CONTEXT), "--parallel", "1", *arguments)
    with stopping(engine):
        gateway = box.start_gateway()
        with stopping(gateway):
            yield box


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, long_model: Path) -> Iterator[Box]:
    """A gateway before an engine that generates."""
    yield from serve(tmp_path_factory.mktemp("gen"), engine_binary, long_model, "--batch-size", "512")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, long_model: Path) -> Iterator[Box]:
    """A gateway before an engine that embeds."""
    yield from serve(
        tmp_path_factory.mktemp("emb"), engine_binary, long_model, "--embeddings", "--pooling", "mean", "-ub", "2048"
    )


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path) -> Iterator[Box]:
    """A gateway before an engine that ranks."""
    model = write_tiny_model(tmp_path_factory.mktemp("models") / "rank.gguf", context=CONTEXT, rerank=True)
    yield from serve(tmp_path_factory.mktemp("rank"), engine_binary, model, "--reranking", "-ub", "2048")


def send(box: Box, path: str, body: dict[str, Any]) -> socket.socket:
    """Send a request and do not wait for its answer."""
    data = json.dumps({"model": "tiny", **body}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    sock = socket.create_connection(("127.0.0.1", box.port), timeout=30)
    sock.sendall(head.encode() + data)
    return sock


def waiting(box: Box) -> int:
    """Return how many requests wait in the gateway's queue."""
    sock = socket.create_connection(("127.0.0.1", box.port), timeout=5)
    with sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["queue"]["waiting"])


def assert_freed(box: Box, *, at_once: bool) -> None:
    """Check that no slot works on anything within a second of the engine's being able to notice."""
    if not at_once:
        time.sleep(FREE_SECONDS + 0.7)  # one look of the engine after its clients
        assert busy_slots(box.socket) == 0, f"slots still busy\n{box.log[-2000:]}"
        return
    begin = time.monotonic()
    wait_until(lambda: busy_slots(box.socket) == 0, FREE_SECONDS, lambda: f"slots still busy\n{box.log[-2000:]}")
    assert time.monotonic() - begin <= FREE_SECONDS + 0.1


def leave_while_working(box: Box, path: str, body: dict[str, Any], *, first_bytes: bool) -> None:
    """Send a request, go away while the engine works on it, and check its slot."""
    wait_until(lambda: busy_slots(box.socket) == 0, 20)
    with send(box, path, body) as sock:
        if first_bytes:
            assert sock.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: busy_slots(box.socket) == 1, 10, lambda: box.log[-2000:])
        time.sleep(0.1)
        assert busy_slots(box.socket) == 1, "it was done before it could be left"
    assert_freed(box, at_once=first_bytes)


@pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", GENERATING)
def test_leaving_while_it_generates(generator: Box, path: str, streams: bool) -> None:
    body = {**GENERATING[path], "stream": streams}
    leave_while_working(generator, path, body, first_bytes=streams)


@pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", PREFILLING)
def test_leaving_while_it_reads_the_prompt(generator: Box, path: str, streams: bool) -> None:
    body = {**PREFILLING[path], "stream": streams, "cache_prompt": False}
    leave_while_working(generator, path, body, first_bytes=False)


@pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("path", GENERATING)
def test_leaving_the_queue(generator: Box, path: str, streams: bool) -> None:
    box = generator
    wait_until(lambda: busy_slots(box.socket) == 0, 20)
    holder = {**GENERATING["/v1/chat/completions"], "stream": True}
    with send(box, "/v1/chat/completions", holder):
        wait_until(lambda: busy_slots(box.socket) == 1, 10)
        with send(box, path, {**GENERATING[path], "stream": streams}):
            wait_until(lambda: waiting(box) == 1, 5)
        wait_until(lambda: waiting(box) == 0, FREE_SECONDS)
    assert_freed(box, at_once=True)
    time.sleep(0.2)
    assert busy_slots(box.socket) == 0, "the one that left the queue reached the engine"


# Embeddings and rankings of many texts give the engine a result for each, so it finds no quiet second in which to look
# after its clients: leaving them frees the gateway's queue, and the engine's slot when its batch is done.
def test_leaving_the_queue_of_embeddings(embedder: Box) -> None:
    leave_queue(embedder, "/v1/embeddings", EMBEDDINGS)


def test_leaving_the_queue_of_rerank(ranker: Box) -> None:
    leave_queue(ranker, "/v1/rerank", RERANK)


def leave_queue(box: Box, path: str, body: dict[str, Any]) -> None:
    """Leave while another request holds the only slot."""
    with send(box, path, body):
        wait_until(lambda: busy_slots(box.socket) == 1, 10)
        with send(box, path, body):
            wait_until(lambda: waiting(box) == 1, 5)
        wait_until(lambda: waiting(box) == 0, FREE_SECONDS)
