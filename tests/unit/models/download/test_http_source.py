"""Redirects, credentials, and what breaks on the way, against real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.download.download import download
from llama_gguf.models.download.http_client import DownloadInterruptedError, HttpClient, body
from llama_gguf.models.download.http_source import HttpSource
from llama_gguf.models.download.spec import Remote, Tuning
from llama_gguf.models.network import Network
from support.file_server import Remote as Served
from support.file_server import file_server
from support.silent import Silent

BODY = b"GGUF" + bytes(1000)


def failure(tmp_path: Path, url: str, **headers: str) -> ModelError:
    remote, hasty = (
        Remote(url, "the model", headers=headers),
        Tuning(connect_timeout=0.3, read_timeout=0.3, retry_delay=0.01),
    )
    with pytest.raises(ModelError) as caught:
        download(remote, tmp_path / "m.gguf", Silent(), tuning=hasty)
    assert "secret" not in caught.value.message
    assert "127.0.0.1/" not in caught.value.message
    return caught.value


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Run a server that sends each of `answers` to one connection, whatever it asks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


def test_nobody_there(tmp_path: Path) -> None:
    error = failure(tmp_path, "http://127.0.0.1:9/x?k=secret")
    assert error.message == "the model: cannot connect to 127.0.0.1:9: Connection refused"
    assert (error.code, error.permanent) == ("model_unreachable", False)


def test_no_such_name(tmp_path: Path) -> None:
    error = failure(tmp_path, "http://nobody.invalid/x?k=secret")
    assert error.message == "the model: cannot resolve the host name nobody.invalid"
    assert not error.permanent


def test_silence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error = failure(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}/x?k=secret")
    assert error.message == "the model: timed out waiting for data"
    assert not error.permanent


def test_a_door_that_never_opens(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.socket() as first, socket.socket() as second:
            for blocker in (first, second):  # the queue of connections is full now
                blocker.setblocking(False)
                blocker.connect_ex(address)
            error = failure(tmp_path, f"http://127.0.0.1:{address[1]}/x?k=secret")
    assert error.message == "the model: the server does not respond"


def test_not_http(tmp_path: Path) -> None:
    with answering(b"SSH-2.0-secret\r\n\r\n") as address:
        error = failure(tmp_path, f"http://{address}/x")
    assert error.message == "the model: the response is not valid HTTP"
    with answering(b"", b"") as address:  # aiohttp asks twice itself
        error = failure(tmp_path, f"http://{address}/x")
    assert error.message == "the model: the connection was closed before the response was complete"


def test_not_tls(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        error = failure(tmp_path, f"https://{address}/x?k=secret")
    assert error.message.startswith("the model: TLS connection to 127.0.0.1 failed: ")
    assert not error.permanent


@pytest.mark.parametrize("url", ["http://a:b:c/x", "http://[::1/x", "http://127.0.0.1:99999/x"])
def test_impossible_addresses(tmp_path: Path, url: str) -> None:
    error = failure(tmp_path, url)
    assert (error.code, error.message) == ("bad_url", "the model: invalid URL")


def test_a_token_and_a_password_do_not_go_together(tmp_path: Path) -> None:
    assert failure(tmp_path, "http://a:secret@127.0.0.1:9/x", Authorization="Bearer secret").code == "bad_url"


def test_credentials_do_not_follow_a_redirect_to_another_host(tmp_path: Path) -> None:
    with file_server() as site, file_server() as elsewhere:
        elsewhere.files["/cdn"] = Served(BODY)
        site.redirects["/m"] = "/moved"
        site.redirects["/moved"] = elsewhere.url("/cdn").replace("127.0.0.1", "localhost")
        remote = Remote(site.url("/m"), "x", headers={"Authorization": "Bearer secret"})
        download(remote, tmp_path / "m.gguf", Silent())
        assert site.asked("GET", "/m")[0]["authorization"] == "Bearer secret"
        assert site.asked("GET", "/moved")[0]["authorization"] == "Bearer secret"
        assert "authorization" not in elsewhere.asked("GET", "/cdn")[0]


def test_a_signature_is_sent_as_it_was_given(tmp_path: Path) -> None:
    """Its escapes are part of what was signed."""
    query = "?Policy=a%2Fb%7E+%3A&response-content-disposition=attachment%3B%20filename%3D%22x%22"
    targets: list[str] = []
    with file_server() as site:
        site.files["/cdn"] = Served(BODY)
        site.fate = lambda target, _: targets.append(target)
        site.redirects["/m"] = site.url("/cdn") + query
        download(Remote(site.url("/m"), "x"), tmp_path / "m.gguf", Silent())
        site.redirects["/n"] = "/cdn?wörds and spaces".encode().decode("latin-1")
        download(Remote(site.url("/n"), "x"), tmp_path / "n.gguf", Silent())
    assert targets == ["/cdn" + query, "/cdn?w%C3%B6rds+and+spaces"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/m", "more than 10 redirects"),
        ("ftp://127.0.0.1/secret", "redirects to ftp: instead of http: or https:"),
        ("http://a:b:c/secret", "redirects to an invalid URL"),
    ],
)
def test_redirects_that_lead_nowhere(tmp_path: Path, location: str, message: str) -> None:
    with file_server() as site:
        site.redirects["/m"] = location
        error = failure(tmp_path, site.url("/m"))
    assert (error.message, error.permanent) == (f"the model: {message}", True)


async def test_a_body_that_breaks_off() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nGGUF") as address:
        async with HttpClient(Network({}), 1, 1) as client:
            source = HttpSource(client, f"http://{address}/x", {})
            async with source.get({}) as response:
                with pytest.raises(DownloadInterruptedError, match="closed before the response was complete"):
                    assert [chunk async for chunk in body(response)] == []
