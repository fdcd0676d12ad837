"""Authentication and authorization: finds the key in a request and checks what it permits. Pure.

Fails closed: without a usable key in the keyring every request that requires one is rejected, whatever the reason. The
error is the same for malformed, unknown and expired keys; a missing one gets the hint how to send it.
"""

from __future__ import annotations

import datetime as dt

from llama_gguf.api_errors import GatewayError
from llama_gguf.keys.keyring import Keyring
from llama_gguf.keys.record import KeyRecord
from llama_gguf.settings.hosts import is_loopback
from llama_gguf.settings.sections.scope import Scope

_BEARER = b"bearer "
_FORWARDED = frozenset({b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip"})
_MAPPED = "::ffff:"  # an IPv4 address on a socket for both

ANONYMOUS = KeyRecord(
    id="anonymous",
    digest="0" * 64,
    prefix="",
    created=dt.datetime.fromtimestamp(0, dt.UTC),
    scopes=frozenset({"inference", "metrics"}),
)
"""The client where authentication is disabled: the default limits apply, and nobody is an admin."""


def present_key(headers: dict[bytes, bytes], extra_header: bytes | None) -> bytes:
    """Return the key in a request's headers, b"" if there is none.

    Accepts `Authorization: Bearer K`, bare `Authorization: K`, `x-api-key: K` and the configured header. Authorization
    comes last, because proxies of a platform (RunPod) use it themselves.
    """
    if extra_header is not None and (value := headers.get(extra_header)):
        return _strip(value)
    if value := headers.get(b"x-api-key"):
        return value.strip()
    return _strip(headers.get(b"authorization", b""))


def _strip(value: bytes) -> bytes:
    if value[:7].lower() == _BEARER:
        value = value[7:]
    return value.strip()


def authenticate(headers: dict[bytes, bytes], ring: Keyring, now: float, extra_header: bytes | None) -> KeyRecord:
    """Return the record of the key in a request's headers. Raises GatewayError 401."""
    presented = present_key(headers, extra_header)
    if not presented:
        raise GatewayError(
            "invalid_api_key", "Missing API key. Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
        )
    record = ring.match(presented, now)
    if record is None:
        raise GatewayError("invalid_api_key", "Invalid or expired API key.")
    return record


def is_local(peer: str, headers: dict[bytes, bytes]) -> bool:
    """Return whether a request comes from a program of this machine, and not through a proxy there."""
    return is_loopback(peer.removeprefix(_MAPPED)) and not any(
        name in _FORWARDED or name.startswith(b"x-forwarded-") for name in headers
    )


def require_scope(record: KeyRecord, scope: Scope) -> None:
    """Check that a key has `scope`; `admin` includes `metrics`. Raises GatewayError 403."""
    if scope in record.scopes or (scope == "metrics" and "admin" in record.scopes):
        return
    raise GatewayError("insufficient_scope", f"This API key lacks the scope `{scope}`.")


def require_model(record: KeyRecord | None, requested: str, served: tuple[str, ...]) -> str:
    """Return the served name of the requested model; the first if the request names none or an unknown one.

    A key restricted to some models must name one of them exactly. Raises GatewayError 404.
    """
    name = requested if requested in served else served[0]
    if record is None or record.models is None:
        return name
    if (requested in served or not requested) and name in record.models:
        return name
    raise GatewayError(
        "model_not_found",
        f"The model {requested or name!r} does not exist, or this API key is not allowed to use it.",
        param="model",
    )
