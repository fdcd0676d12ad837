"""A models directory with one model in it, and servers that only proxies find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import make_authority, make_certificate, server_context
from support.file_server import FileServer, Remote, file_server
from support.model_box import locations_for
from support.tiny_model import write_tiny_model

GGUF_BODY = b"GGUF" + bytes(3000)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return the models directory below `tmp_path`."""
    directory = locations_for(tmp_path).models_dir
    write_tiny_model(directory / "Tiny-Q8_0.gguf")
    return directory


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def site(authority: Path) -> Iterator[FileServer]:
    """A server for https://models.test, a name that only the proxies know."""
    certificate = make_certificate(authority, "models.test", "cdn.test", "127.0.0.1")
    with file_server(server_context(certificate)) as server:
        server.files["/m"] = Remote(GGUF_BODY)
        yield server


@pytest.fixture
def plain_site() -> Iterator[FileServer]:
    """The same without TLS."""
    with file_server() as server:
        server.files["/m"] = Remote(GGUF_BODY)
        yield server
