"""Headers read from a real server: with ranges and without, slow, lying, and what is no model at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.download import spec
from llama_gguf.models.download.http_client import HttpClient
from llama_gguf.models.gguf.header import Header, read_header
from llama_gguf.models.network import Network
from llama_gguf.models.remote.header_cache import HeaderCache
from llama_gguf.models.remote.header_prefix import PrefixLimits, RemoteFile, RemoteHeader, fetch_header
from support.file_server import Fate, FileServer, Remote, file_server
from support.tiny_model import write_tiny_model

LIMITS = PrefixLimits(
    steps=(1000, 4000, 20_000), connect_seconds=5, stall_seconds=5, total_seconds=20, retry_seconds=0.01
)
QUICK = replace(LIMITS, stall_seconds=0.2, total_seconds=0.5)


@pytest.fixture
def site() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def model(tiny_model: Path) -> Header:
    return read_header(tiny_model)


Read = Callable[..., RemoteHeader]


@pytest.fixture
def read(site: FileServer, tmp_path: Path) -> Read:
    def read(limits: PrefixLimits = LIMITS, path: str = "/m", cache: HeaderCache | None = None) -> RemoteHeader:
        async def fetch() -> RemoteHeader:
            file = RemoteFile(spec.Remote(site.url(path), "the label"), "the source")
            async with HttpClient(Network({}), limits.connect_seconds, limits.stall_seconds) as client:
                return await fetch_header(client, file, tmp_path / "scratch", cache or HeaderCache(None), limits)

        return asyncio.run(fetch())

    return read


def same(found: RemoteHeader, model: Header) -> bool:
    return (found.header.metadata, found.header.tensors, found.header.data_offset) == (
        model.metadata,
        model.tensors,
        model.data_offset,
    )


def refusal(read: Read, limits: PrefixLimits = LIMITS) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read(limits)
    assert "the label" in caught.value.message
    return caught.value


def ranges(site: FileServer) -> list[str]:
    return [headers["range"] for headers in site.asked("GET", "/m")]


def test_only_as_much_as_the_header_takes(site: FileServer, read: Read, model: Header) -> None:
    site.files["/m"] = Remote(model.path.read_bytes())
    found = read()
    assert same(found, model)
    assert found.file_bytes == model.file_bytes
    assert ranges(site) == ["bytes=0-999", "bytes=1000-3999", "bytes=4000-19999"]
    assert found.header.file_bytes == 20_000 < model.file_bytes


@pytest.mark.parametrize("length", [True, False])
def test_a_server_without_ranges(site: FileServer, read: Read, model: Header, length: bool) -> None:
    """It sends all of the file: the connection is closed when there is enough."""
    big = model.path.read_bytes() + bytes(30_000_000)
    site.files["/m"] = Remote(big, ranges=False, length=length)
    found = read()
    assert same(found, model)
    assert found.file_bytes == (len(big) if length else None)
    assert found.header.file_bytes < 3_000_000
    assert len(ranges(site)) == 1


def test_ranges_that_end_in_the_middle(site: FileServer, read: Read, model: Header) -> None:
    """A server that has ranges for the first request only: what came before is not counted twice."""
    site.files["/m"] = Remote(model.path.read_bytes())

    def fate(target: str, headers: dict[str, str]) -> None:
        site.files["/m"] = replace(site.files["/m"], ranges=headers["range"] == "bytes=0-999")

    site.fate = fate
    assert same(read(), model)


def test_an_interrupted_response_is_requested_again(site: FileServer, read: Read, model: Header) -> None:
    site.files["/m"] = Remote(model.path.read_bytes())
    site.cut_after = [500, 20]
    site.statuses = [503]
    found = read(replace(LIMITS, attempts=4))
    assert same(found, model)
    site.cut_after = [500, 20, 20]
    error = refusal(read)
    assert "the connection was closed before the response was complete" in error.message
    assert not error.permanent


def test_a_slow_server_is_given_up(site: FileServer, read: Read, model: Header) -> None:
    site.files["/m"] = Remote(model.path.read_bytes())
    site.bytes_per_second = 500.0
    error = refusal(read, QUICK)
    assert "the server did not send the header within" in error.message
    assert not error.permanent


def test_a_silent_server_is_given_up(site: FileServer, read: Read, model: Header) -> None:
    site.files["/m"] = Remote(model.path.read_bytes())
    site.fate = lambda target, headers: Fate(cut_after=10, stall=True)
    assert not refusal(read, replace(QUICK, total_seconds=5.0, attempts=1)).permanent


@pytest.mark.parametrize("ranged", [True, False])
def test_a_page_instead_of_a_model(site: FileServer, read: Read, ranged: bool) -> None:
    page = b"<!doctype html>" + bytes(50_000_000)
    site.files["/m"] = Remote(page, content_type="text/html; charset=utf-8", ranges=ranged)
    error = refusal(read)
    assert "the response is not a GGUF file but text/html" in error.message
    assert error.permanent
    assert len(ranges(site)) == 1


@pytest.mark.parametrize(
    ("status", "code", "permanent"),
    [
        (401, "model_access_refused", True),
        (403, "model_access_refused", True),
        (404, "model_not_found", True),
        (400, "model_server_error", True),
        (429, "model_server_error", False),
        (500, "model_server_error", False),
    ],
)
def test_a_status_that_is_no_file(site: FileServer, read: Read, status: int, code: str, permanent: bool) -> None:
    site.files["/m"] = Remote(b"")
    site.fate = lambda target, headers: Fate(status=status)
    error = refusal(read)
    assert (error.code, error.permanent) == (code, permanent)
    assert len(ranges(site)) == (1 if permanent else LIMITS.attempts)


def test_a_header_that_never_ends(site: FileServer, read: Read, model: Header) -> None:
    """A model of 100 layers has a larger header than these limits allow."""
    large = write_tiny_model(model.path.parent / "large.gguf", layers=100)
    site.files["/m"] = Remote(large.read_bytes())
    error = refusal(read)
    assert "its header is larger than" in error.message
    assert error.code == "model_unsupported"


@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("size", [0, 3, 20, 500, 1000, 5000])
def test_a_file_that_ends_in_its_header(site: FileServer, read: Read, model: Header, size: int, ranged: bool) -> None:
    site.files["/m"] = Remote(model.path.read_bytes()[:size], ranges=ranged)
    assert refusal(read).code in ("model_incomplete", "model_not_gguf", "bad_answer")


def test_an_unfinished_upload(site: FileServer, read: Read, model: Header) -> None:
    site.files["/m"] = Remote(model.path.read_bytes()[:30_000])
    error = refusal(read)
    assert "the file on the server is incomplete: 30000 of" in error.message
    assert error.permanent


def test_other_bytes_than_requested(site: FileServer, read: Read, model: Header) -> None:
    site.files["/m"] = Remote(model.path.read_bytes())
    site.wrong_range = True
    assert refusal(read).code == "bad_answer"


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("/m", "more than 10 redirects"),
        ("file:///etc/passwd", "redirects to file: instead of"),
        ("http://[", "an invalid URL"),
    ],
)
def test_redirects_that_lead_nowhere(site: FileServer, read: Read, target: str, complaint: str) -> None:
    site.redirects["/m"] = target
    error = refusal(read)
    assert complaint in error.message
    assert error.permanent
    assert len(ranges(site)) <= 11


def test_a_file_that_changes_meanwhile(site: FileServer, read: Read, model: Header) -> None:
    """Its parts would be of two versions; the second attempt sees only the new one."""
    other = write_tiny_model(model.path.parent / "other.gguf", seed=3, context=4096)
    site.files["/m"] = Remote(model.path.read_bytes())

    def fate(target: str, headers: dict[str, str]) -> None:
        if headers["range"].startswith("bytes=1000-"):
            site.files["/m"] = Remote(other.read_bytes(), etag='"v2"')

    site.fate = fate
    assert same(read(), read_header(other))


def test_a_length_that_lies(tmp_path: Path, model: Header) -> None:
    """More is claimed than comes, or the body goes on for ever: the limits hold either way."""
    body = model.path.read_bytes()
    for claimed, sent in ((10**15, body[:3000]), (10**15, body)):
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {claimed}\r\n\r\n".encode()

        async def fetch(head: bytes = head, sent: bytes = sent) -> RemoteHeader:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head + sent)
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            file = RemoteFile(spec.Remote(f"http://127.0.0.1:{port}/m", "the label"), "s")
            async with server, HttpClient(Network({}), 5, 5) as client:
                return await fetch_header(client, file, tmp_path / "scratch", HeaderCache(None), LIMITS)

        if len(sent) < model.data_offset:
            with pytest.raises(ModelError, match="the connection was closed before the response was complete"):
                asyncio.run(fetch())
        else:
            assert same(asyncio.run(fetch()), model)


def test_the_cache_saves_the_bytes_while_the_version_is_the_same(
    site: FileServer, read: Read, model: Header, tmp_path: Path
) -> None:
    cache = HeaderCache(tmp_path / "cache")
    site.files["/m"] = Remote(model.path.read_bytes())
    read(cache=cache)
    site.requests.clear()
    again = read(cache=cache)
    assert same(again, model)
    assert again.file_bytes == model.file_bytes
    assert ranges(site) == ["bytes=0-999"]
    other = write_tiny_model(tmp_path / "other.gguf", seed=3, context=4096)
    site.files["/m"] = Remote(other.read_bytes(), etag='"v2"')
    assert same(read(cache=cache), read_header(other))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    site.files["/m"] = Remote(model.path.read_bytes(), etag=None)  # nothing says whether it is the same
    assert same(read(cache=cache), model)


def test_a_server_that_gives_two_files_one_version(site: FileServer, read: Read, model: Header, tmp_path: Path) -> None:
    """Another size is another file, whatever the ETag says."""
    cache = HeaderCache(tmp_path / "cache")
    site.files["/m"] = Remote(model.path.read_bytes())
    read(cache=cache)
    site.files["/m"] = Remote(model.path.read_bytes() + bytes(100))
    found = read(cache=cache)
    assert found.file_bytes == model.file_bytes + 100
    assert found.header.file_bytes == LIMITS.steps[-1]
