"""A client that goes away frees its slot of the real engine within a second: the matrix of schema/reference.md.

Routes times streamed or not times where the request is: waiting in the queue, reading its prompt, generating. The
engine's own /slots tell. The cases are those that the generated reference prints. Asking /slots is traffic too, and an
engine without image/engine/patches.cmake looks after its clients only when there is none: then all of this fails.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from llama_gguf.cli.generate.gateway_tables import CANCEL_MATRIX, Phase
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
SCORING: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": [f"{number} " + "x" * 1500 for number in range(400)]},
    "/v1/rerank": {"query": "q", "documents": [f"{number} " + "x" * 1500 for number in range(400)]},
}


def cases(phase: Phase) -> list[Any]:
    """Return path and whether it streams, for every case of the matrix in `phase`."""
    return [
        pytest.param(path, kind == "stream", id=f"{path}-{kind}")
        for path, phases in CANCEL_MATRIX.items()
        for kind in phases.get(phase, ())
    ]


def test_the_matrix_is_whole() -> None:
    """Every route that generates in every phase, streamed and not; every route that scores in both of its phases."""
    both = ("stream", "plain")
    assert {
        **{path: dict.fromkeys(("queued", "prefill", "generating"), both) for path in GENERATING},
        **{path: dict.fromkeys(("queued", "prefill"), ("plain",)) for path in SCORING},
    } == CANCEL_MATRIX


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with room for a long answer."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "long.gguf", context=CONTEXT)


def serve(root: Path, binary: Path, model: Path, *arguments: str, slots: int = 1) -> Iterator[Box]:
    """Run one engine, by default with one slot, and a gateway in front of it."""
    box = make_box(root, {"engine": {"slots": slots, "context_per_slot": CONTEXT}})
    engine = box.start_engine(binary, model, "--ctx-size", str(CONTEXT * slots), "--parallel", str(slots), *arguments)
    with stopping(engine):
        gateway = box.start_gateway()
        with stopping(gateway):
            yield box


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, long_model: Path) -> Iterator[Box]:
    """A gateway before an engine that generates."""
    yield from serve(tmp_path_factory.mktemp("gen"), engine_binary, long_model, "--batch-size", "512")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path, long_model: Path) -> Iterator[Box]:
    """A gateway before an engine that generates for two."""
    yield from serve(tmp_path_factory.mktemp("two"), engine_binary, long_model, slots=2)


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


def assert_freed(box: Box) -> None:
    """Check that no slot works on anything soon, and stays so; left alone it would for minutes.

    Between two inputs of one request a slot is idle for a moment, so that once is not enough.
    """

    def stays_idle() -> bool:
        return all(busy_slots(box.socket) == 0 for _ in range(5))

    wait_until(stays_idle, FREE_SECONDS, lambda: f"slots still busy\n{box.log[-2000:]}")


def leave_while_working(box: Box, path: str, body: dict[str, Any], *, first_bytes: bool) -> None:
    """Send a request, go away while the engine works on it, and check its slot."""
    wait_until(lambda: busy_slots(box.socket) == 0, 20)
    with send(box, path, body) as sock:
        if first_bytes:
            assert sock.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: busy_slots(box.socket) == 1, 10, lambda: box.log[-2000:])
        time.sleep(0.1)
        wait_until(lambda: busy_slots(box.socket) == 1, 1, lambda: "it was done before it could be left")
    assert_freed(box)


@pytest.fixture
def box_of(request: pytest.FixtureRequest) -> Callable[[str], Box]:
    """Return what starts, once, the engine and gateway that answer a path."""
    names = {"/v1/embeddings": "embedder", "/v1/rerank": "ranker"}
    return lambda path: cast("Box", request.getfixturevalue(names.get(path, "generator")))


@pytest.mark.parametrize(("path", "streams"), cases("generating"))
def test_leaving_while_it_generates(box_of: Callable[[str], Box], path: str, streams: bool) -> None:
    body = {**GENERATING[path], "stream": streams}
    leave_while_working(box_of(path), path, body, first_bytes=streams)


@pytest.mark.parametrize(("path", "streams"), cases("prefill"))
def test_leaving_while_it_reads_the_prompt(box_of: Callable[[str], Box], path: str, streams: bool) -> None:
    body = SCORING.get(path) or {**PREFILLING[path], "stream": streams, "cache_prompt": False}
    leave_while_working(box_of(path), path, body, first_bytes=False)


@pytest.mark.parametrize(("path", "streams"), cases("queued"))
def test_leaving_the_queue(box_of: Callable[[str], Box], path: str, streams: bool) -> None:
    box = box_of(path)
    holder = path if path in SCORING else "/v1/chat/completions"
    wait_until(lambda: busy_slots(box.socket) == 0, 20)
    with send(box, holder, SCORING.get(holder) or GENERATING[holder]):
        wait_until(lambda: busy_slots(box.socket) == 1, 10)
        with send(box, path, SCORING.get(path) or {**GENERATING[path], "stream": streams}):
            wait_until(lambda: waiting(box) == 1, 5)
        wait_until(lambda: waiting(box) == 0, FREE_SECONDS)
    assert_freed(box)
    time.sleep(0.2)
    assert busy_slots(box.socket) == 0, "the one that left the queue reached the engine"


@pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
def test_leaving_while_another_client_streams(shared: Box, streams: bool) -> None:
    box = shared
    path = "/v1/chat/completions"
    with send(box, path, {**GENERATING[path], "stream": True}) as other:
        reader = threading.Thread(target=drain, args=(other,), daemon=True)
        reader.start()
        wait_until(lambda: busy_slots(box.socket) == 1, 10)
        with send(box, path, {**GENERATING[path], "stream": streams}):
            wait_until(lambda: busy_slots(box.socket) == 2, 10)
        wait_until(lambda: busy_slots(box.socket) == 1, FREE_SECONDS)
        other.shutdown(socket.SHUT_RDWR)
    reader.join(5)
    assert_freed(box)


def drain(sock: socket.socket) -> None:
    """Read and forget until the connection ends."""
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass
