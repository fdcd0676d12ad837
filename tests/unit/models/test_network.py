"""The way to the hub: the same proxy, authorities and token for metadata and bytes; and tokens in variables."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from pathlib import Path

import pytest

from llama_gguf.errors import ConfigError, ModelError
from llama_gguf.models.network import Network, check_hub
from llama_gguf.models.resolve import resolve
from support.file_server import FileServer
from support.file_server import Remote as Served
from support.model_box import Remembering, locations_for, settings_for
from support.proxy_servers import http_proxy, names_of, socks_proxy

LOGIN = ("me", "p@ss:w/rd")
QUOTED = "me:p%40ss%3Aw%2Frd"


@pytest.fixture
def hub(site: FileServer, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """The same server as https://models.test, the hub: its files lie at cdn.test."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://models.test")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "https://models.test/{repo_id}/resolve/{revision}/{filename}",
    )
    site.hub["acme/tiny"] = {"t.gguf": Served(tiny_model.read_bytes())}
    site.hub_token = "hf_secret"
    site.address = "https://cdn.test"
    return site


def from_hub(folder: Path, env: dict[str, str]) -> Path:
    model = settings_for(folder, {"hf": {"repo": "acme/tiny", "file": "t.gguf"}}).model
    return resolve(model, locations_for(folder), env, Remembering()).model


@pytest.mark.parametrize("kind", ["http", "socks5h"])
@pytest.mark.parametrize("token", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_metadata_and_bytes_of_the_hub_go_the_same_way(
    hub: FileServer, authority: Path, tmp_path: Path, kind: str, token: str
) -> None:
    opened = http_proxy(names_of(hub.port), LOGIN) if kind == "http" else socks_proxy(names_of(hub.port), LOGIN)
    with opened as proxy:
        env = {
            "ALL_PROXY": f"{kind}://{QUOTED}@127.0.0.1:{proxy.port}",
            "REQUESTS_CA_BUNDLE": f'"{authority}"',
            token: ' "hf_secret"\r\n',
        }
        assert from_hub(tmp_path, env).is_file()
        assert {name.split()[1] for name in proxy.seen} == {"models.test:443", "cdn.test:443"}
    assert {method for method, path, _ in hub.requests if path.startswith("/acme")} == {"HEAD", "GET"}
    for _, path, headers in hub.requests:
        assert ("authorization" in headers) == path.startswith("/acme"), path


def test_a_hub_behind_a_proxy_that_refuses(hub: FileServer, tmp_path: Path) -> None:
    with http_proxy(names_of(hub.port), ("me", "other")) as proxy:
        with pytest.raises(ModelError) as caught:
            from_hub(tmp_path, {"https_proxy": f"http://{QUOTED}@127.0.0.1:{proxy.port}"})
        assert "p@ss" not in str(caught.value)
        assert caught.value.message == (
            f"model.hf: the Hub cannot be reached, through the proxy http://127.0.0.1:{proxy.port} (https_proxy): "
            "407 No"
        )
        assert caught.value.permanent
        assert "https_proxy" in caught.value.hint


def test_a_hub_of_an_unknown_authority(hub: FileServer, tmp_path: Path) -> None:
    with (
        http_proxy(names_of(hub.port)) as proxy,
        pytest.raises(ModelError, match="CERTIFICATE_VERIFY_FAILED") as caught,
    ):
        from_hub(tmp_path, {"https_proxy": f"http://127.0.0.1:{proxy.port}"})
    assert "SSL_CERT_FILE" in caught.value.hint


@pytest.mark.parametrize(
    "env",
    [
        {"ALL_PROXY": "ftp://me:p%40ss@h"},
        {"HTTPS_PROXY": "http://me:p@ss/w@h:1"},
        {"SSL_CERT_FILE": "/nowhere/ca.pem"},
        {"HF_TOKEN": "hf_a hf_b"},
    ],
    ids=str,
)
def test_what_cannot_be_used_is_an_error_of_the_configuration(
    hub: FileServer, tmp_path: Path, env: dict[str, str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_hub(tmp_path, env)
    (name,) = env
    assert caught.value.message.startswith(f"{name}: ")
    assert caught.value.hint
    assert not any(word in str(caught.value) for word in ("p@ss", "p%40ss", "hf_a"))
    assert not hub.requests


def test_a_broken_variable_does_not_stop_a_model_on_disk(hub: FileServer, authority: Path, tmp_path: Path) -> None:
    with http_proxy(names_of(hub.port)) as proxy:
        env = {
            "HTTPS_PROXY": f"127.0.0.1:{proxy.port}",
            "SSL_CERT_FILE": str(authority),
            "HF_TOKEN": "hf_secret",
        }
        there = from_hub(tmp_path, env)
    assert from_hub(tmp_path, env | {"HTTPS_PROXY": "ftp://x"}) == there


# --- tokens


@pytest.mark.parametrize(
    "url", ["", "hub.test", '"https://h"', "https://h:99999", "https://h:x", "https://[::1", "ftp://h"]
)
def test_what_is_no_hub(url: str) -> None:
    with pytest.raises(ConfigError, match="HF_ENDPOINT"):
        check_hub(url)
    check_hub("https://huggingface.co")


def test_a_token_in_clear_is_told(plain_site: FileServer, caplog: pytest.LogCaptureFixture) -> None:
    with http_proxy(names_of(plain_site.port)) as proxy, caplog.at_level(logging.WARNING):
        network = Network({"http_proxy": f"http://u:secret@127.0.0.1:{proxy.port}"})
        assert network.credentials("http://models.test/m", "t") == {"Authorization": "Bearer t"}
        (record,) = caplog.records
        assert record.message == "the token is sent unencrypted"
        assert "secret" not in str(vars(record))
        caplog.clear()
        for url in ("https://models.test/m", "http://127.0.0.1/m"):
            assert network.credentials(url, "t")
        assert network.credentials("http://models.test/m", None) == {}
        assert not caplog.records


def test_quotes_around_a_token_are_removed_and_told(caplog: pytest.LogCaptureFixture) -> None:
    network = Network({"A": '"hf_x"', "B": "hf_x\r", "C": "hf_x", "D": " "})
    with caplog.at_level(logging.WARNING):
        assert [network.token(name) for name in "ABCDE"] == ["hf_x", "hf_x", "hf_x", None, None]
    assert [vars(record)["fields"]["variable"] for record in caplog.records] == ["A", "B"]
    assert "hf_x" not in caplog.text


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # httpx2 leaves the socket to the collector
@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"", b"\x05\xff", b"\x05\x00\x05\x01"])
def test_a_hub_behind_what_is_no_proxy_at_all(hub: FileServer, tmp_path: Path, kind: str, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        address = f"{kind}://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ModelError, match="the Hub cannot be reached, through the proxy") as caught:
            from_hub(tmp_path, {"all_proxy": address})
    assert f"{address} (all_proxy)" in caught.value.message
    assert not hub.requests
    del caught
    gc.collect()
