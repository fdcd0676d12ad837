"""Whom downloads trust: the variables, and what is wrong with the files they name."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.settings.certificates import trusted_by
from support.certificates import make_authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("authority"))


def names(context: ssl.SSLContext) -> list[str]:
    return [str(dict(pair[0] for pair in found["subject"])["commonName"]) for found in context.get_ca_certs()]  # type: ignore[misc]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_file_replaces_the_systems(authority: Path, variable: str) -> None:
    context = trusted_by({variable: f'"{authority}"'})
    assert names(context) == ["Test authority"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_the_first_file_counts(authority: Path) -> None:
    assert names(trusted_by({"CURL_CA_BUNDLE": "/nowhere", "SSL_CERT_FILE": str(authority)})) == ["Test authority"]


def test_without_variables_the_system_is_trusted() -> None:
    context = trusted_by({"SSL_CERT_FILE": " "})
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_a_directory(authority: Path, tmp_path: Path, variable: str) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.read_bytes())
    with pytest.raises(ConfigError, match=f"^{variable}: {tmp_path} has no certificates") as caught:
        trusted_by({variable: str(tmp_path)})
    assert f"openssl rehash {tmp_path}" in caught.value.hint
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, timeout=60)
    assert trusted_by({variable: str(tmp_path)}).verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    "content", [None, b"", b"nothing\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"])
def test_what_cannot_be_used(tmp_path: Path, variable: str, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{variable}: {path} ") as caught:
        trusted_by({variable: str(path)})
    assert "unset the variable" in caught.value.hint
