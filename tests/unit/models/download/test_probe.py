"""The size of a file before its download, or the error that the download would end with."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.download.download import download
from llama_gguf.models.download.probe import remote_size
from llama_gguf.models.download.spec import Remote, Tuning
from llama_gguf.models.network import Network
from support.file_server import Answer, FileServer, file_server
from support.file_server import Remote as Served
from support.silent import Silent

BODY = b"GGUF" + bytes(1_000_000)
TUNING = Tuning(connect_timeout=2.0, read_timeout=30.0, message_timeout=0.3)


@pytest.fixture
def site() -> Iterator[FileServer]:
    with file_server() as server:
        server.files["/m"] = Served(BODY)
        yield server


def size(url: str, sha256: str | None = None) -> int | None:
    return remote_size(Remote(url, "the model", {"Authorization": "Bearer t0ken"}, sha256=sha256), Network({}), TUNING)


def test_the_size(site: FileServer) -> None:
    assert size(site.url("/m")) == len(BODY)
    site.files["/m"].ranges = False
    assert size(site.url("/m")) == len(BODY)
    site.files["/m"].length = False
    assert size(site.url("/m")) is None
    site.answer = lambda *_: Answer(206, {"Content-Range": "bytes */*"}, b"GGUF")
    assert size(site.url("/m")) is None


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (Answer(401, {"X-Error-Message": "t0ken expired"}), "model_access_refused", "access denied (401): *** expired"),
        (Answer(200, {"Content-Type": "text/html"}, b"<"), "model_not_gguf", "not a GGUF file but text/html"),
        (Answer(200, {}, b""), "model_not_gguf", "not a GGUF file"),
        (Answer(302, {"Location": "/m"}), "model_unreachable", "more than 10 redirects"),
    ],
)
def test_refusals(site: FileServer, *, answer: Answer, code: str, message: str) -> None:
    site.answer = lambda *_: answer
    with pytest.raises(ModelError) as caught:
        size(site.url("/m"))
    assert (caught.value.code, caught.value.permanent) == (code, True)
    assert message in caught.value.message


def test_no_server_and_no_url() -> None:
    with pytest.raises(ModelError, match="cannot connect to") as caught:
        size("http://127.0.0.1:9/m")
    assert not caught.value.permanent
    with pytest.raises(ModelError, match="invalid URL"):
        size("http://u:p@[x/m")


@pytest.mark.parametrize("kind", ["probe", "download"])
def test_a_message_that_does_not_end_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 403 No\r\nContent-Type: text/plain\r\nContent-Length: 4000\r\n\r\ncome later"
                )
                ended.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/m"
        try:
            with pytest.raises(ModelError, match=r"access denied \(403\): come later$"):
                size(url) if kind == "probe" else download(Remote(url, "x"), tmp_path / "m", Silent(), tuning=TUNING)
        finally:
            ended.set()
            thread.join()


def test_the_hub_publishes_another_digest(site: FileServer) -> None:
    site.hub["o/r"] = {"m": Served(BODY)}
    with pytest.raises(ModelError, match="on the server, not 000") as caught:
        size(site.url("/o/r/resolve/main/m"), "0" * 64)
    assert caught.value.code == "checksum_mismatch"
