"""A private certificate authority, and certificates of it, made by the openssl program."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def make_authority(directory: Path) -> Path:
    """Return the certificate of a new authority; its key is beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    certificate = directory / "ca.pem"
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"),
        *("-subj", "/CN=Test authority", "-keyout", directory / "ca.key", "-out", certificate),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),  # basicConstraints come by themselves
    )
    return certificate


def make_certificate(authority: Path, *names: str) -> Path:
    """Return a certificate with its key, of a server with `names`, signed by `authority`."""
    directory = authority.parent
    pem, request, extensions = (directory / f"{names[0]}.{suffix}" for suffix in ("pem", "csr", "ext"))
    extensions.write_text(
        "subjectAltName="
        + ",".join(f"DNS:{name}" for name in names)
        + "\nauthorityKeyIdentifier=keyid\nextendedKeyUsage=serverAuth\n"
    )
    key = directory / f"{names[0]}.key"
    _openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={names[0]}"),
        *("-keyout", key, "-out", request),
    )
    _openssl(
        *("x509", "-req", "-days", "30", "-in", request, "-CA", authority, "-CAkey", directory / "ca.key"),
        *("-set_serial", str(abs(hash(names)) + 1), "-extfile", extensions, "-out", pem),
    )
    pem.write_bytes(pem.read_bytes() + key.read_bytes())
    return pem


def server_context(certificate: Path) -> ssl.SSLContext:
    """Return the context of a server with `certificate`, which has its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
