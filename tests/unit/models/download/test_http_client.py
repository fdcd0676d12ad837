"""Requests through real proxies, with a private authority."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.download.download import download
from llama_gguf.models.download.spec import Remote, Tuning
from llama_gguf.models.network import Network
from support.certificates import make_certificate, server_context
from support.file_server import FileServer
from support.proxy_servers import http_proxy, names_of, socks_proxy
from support.silent import Silent

BODY = b"GGUF" + bytes(3000)
LOGIN = ("me", "p@ss:w/rd")
QUOTED = "me:p%40ss%3Aw%2Frd"
HASTY = Tuning(connect_timeout=5, read_timeout=5, retry_delay=0.01)


def get(url: str, env: dict[str, str], folder: Path, **headers: str) -> bytes:
    target = folder / "m.gguf"
    download(Remote(url, "the model", headers), target, Silent(), tuning=HASTY, network=Network(env))
    return target.read_bytes()


def refusal(url: str, env: dict[str, str], folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        get(url, env, folder)
    shown = f"{caught.value.message} {caught.value.hint}"
    assert "p@ss" not in shown
    assert "p%40" not in shown
    return caught.value


@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "password"])
@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h", "socks", ""])
@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
def test_a_file_by_tls_through_every_proxy(
    site: FileServer, authority: Path, tmp_path: Path, *, kind: str, login: tuple[str, str] | None, variable: str
) -> None:
    tls = server_context(make_certificate(authority, "127.0.0.1", "localhost")) if kind == "https" else None
    opened = (
        socks_proxy(names_of(site.port), login)
        if kind.startswith("socks")
        else http_proxy(names_of(site.port), login, tls)
    )
    with opened as proxy:
        user = f"{QUOTED}@" if login else ""
        address = f"{user}localhost:{proxy.port}/"
        env = {variable: f"{kind}://{address}" if kind else address, "SSL_CERT_FILE": str(authority)}
        assert get("https://models.test/m", env, tmp_path, Authorization="Bearer t") == BODY
        assert set(proxy.seen) == {"SOCKS models.test:443" if kind.startswith("socks") else "CONNECT models.test:443"}
        assert not proxy.heads  # it saw nothing of the request
    assert site.asked("GET", "/m")[0]["authorization"] == "Bearer t"


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_file_in_clear_through_a_proxy(plain_site: FileServer, tmp_path: Path, kind: str) -> None:
    opened = (
        http_proxy(names_of(plain_site.port), LOGIN)
        if kind == "http"
        else socks_proxy(names_of(plain_site.port), LOGIN)
    )
    with opened as proxy:
        env = {"HTTP_PROXY": f"{kind}://{QUOTED}@127.0.0.1:{proxy.port}"}
        assert get("http://models.test/m?q=1", env, tmp_path) == BODY
        assert proxy.seen[0] == ("GET http://models.test/m?q=1" if kind == "http" else "SOCKS models.test:80")
    assert "proxy-authorization" not in plain_site.asked("GET", "/m")[0]


def test_each_redirect_takes_its_own_way_and_leaves_the_token(
    site: FileServer, authority: Path, tmp_path: Path
) -> None:
    """The server by one proxy, its storage by none, and the token only to the first."""
    site.redirects["/m2"] = f"https://127.0.0.1:{site.port}/m"
    with socks_proxy(names_of(site.port)) as proxy:
        env = {"all_proxy": f"socks5://127.0.0.1:{proxy.port}", "SSL_CERT_FILE": str(authority)}
        with pytest.raises(
            ModelError, match=r"127\.0\.0\.1 failed"
        ):  # by its address, which the certificate does not have
            get("https://models.test/m2", env, tmp_path, Authorization="Bearer t")
        site.redirects["/m2"] = "https://cdn.test/m"
        assert get("https://models.test/m2", env, tmp_path, Authorization="Bearer t") == BODY
        assert set(proxy.seen) == {"SOCKS models.test:443", "SOCKS cdn.test:443"}
    assert all("authorization" in headers for headers in site.asked("GET", "/m2"))
    assert all("authorization" not in headers for headers in site.asked("GET", "/m"))


def test_a_wrong_password_is_told_with_the_variable(site: FileServer, authority: Path, tmp_path: Path) -> None:
    with http_proxy(names_of(site.port), ("me", "other")) as proxy:
        env = {"HTTPS_PROXY": f"http://{QUOTED}@127.0.0.1:{proxy.port}", "SSL_CERT_FILE": str(authority)}
        error = refusal("https://models.test/m", env, tmp_path)
        where = f"the proxy http://127.0.0.1:{proxy.port} (HTTPS_PROXY)"
        assert error.message == f"the model: {where} responded with 407"
        assert (error.hint, error.permanent) == ("put the right user and password into HTTPS_PROXY", True)
        error = refusal("http://models.test/m", env | {"http_proxy": env["HTTPS_PROXY"]}, tmp_path)
        assert (error.code, error.permanent) == ("model_unreachable", True)
    with socks_proxy(names_of(site.port), ("me", "other")) as proxy:
        env = {"HTTPS_PROXY": f"socks5://{QUOTED}@127.0.0.1:{proxy.port}"}
        error = refusal("https://models.test/m", env, tmp_path)
        assert error.message.startswith(f"the model: the proxy socks5://127.0.0.1:{proxy.port} (HTTPS_PROXY): ")


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_that_is_not_there(tmp_path: Path, kind: str) -> None:
    error = refusal("https://models.test/m", {"all_proxy": f"{kind}://{QUOTED}@127.0.0.1:9"}, tmp_path)
    assert f"{kind}://127.0.0.1:9 (all_proxy)" in error.message
    assert not error.permanent


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
def test_a_proxy_that_says_nothing(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        hasty = Tuning(connect_timeout=0.3, read_timeout=0.3, retry_delay=0.01)
        network = Network({"all_proxy": f"{kind}://{QUOTED}@{where}"})
        with pytest.raises(ModelError) as caught:
            download(Remote("https://models.test/m", "it"), tmp_path / "m", Silent(), tuning=hasty, network=network)
    assert f"{kind}://{where} (all_proxy)" in caught.value.message
    assert not caught.value.permanent


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\nGGUF", b"\x05\xff", b"\x05\x00\x05\x01"]
)
@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_what_is_no_proxy_at_all(tmp_path: Path, kind: str, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(10)
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        address = f"{kind}://127.0.0.1:{listener.getsockname()[1]}"
        error = refusal("https://models.test/m", {"all_proxy": address}, tmp_path)
    assert error.code == "model_unreachable"
    assert f"{address} (all_proxy)" in error.message


def test_a_name_that_the_proxy_does_not_know(tmp_path: Path) -> None:
    with http_proxy({}) as one, socks_proxy({}) as other:
        error = refusal("https://models.test/m", {"all_proxy": f"127.0.0.1:{one.port}"}, tmp_path)
        assert "responded with 502" in error.message
        assert not error.permanent
        error = refusal("https://models.test/m", {"all_proxy": f"socks5://127.0.0.1:{other.port}"}, tmp_path)
        assert "(all_proxy): " in error.message
        assert not error.permanent


def test_an_unknown_authority_is_told_with_the_variable_to_set(site: FileServer, tmp_path: Path) -> None:
    with http_proxy(names_of(site.port)) as one, socks_proxy(names_of(site.port)) as other:
        for kind, proxy in (("http", one), ("socks5", other)):
            error = refusal("https://models.test/m", {"all_proxy": f"{kind}://127.0.0.1:{proxy.port}"}, tmp_path)
            assert "unable to get local issuer certificate" in error.message
            assert "SSL_CERT_FILE" in error.hint


def test_the_variables_of_this_process_are_not_read(
    plain_site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert get(plain_site.url("/m"), {}, tmp_path) == BODY
