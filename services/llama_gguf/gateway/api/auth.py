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

_SPELLED = {b"authorization": "Authorization"}
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


class WrongKeyError(GatewayError):
    """A key was sent, and it is malformed, unknown or expired."""


def presented_keys(headers: dict[bytes, bytes], extra_header: bytes | None) -> list[tuple[str, bytes]]:
    """Return the keys in a request's headers, at most three, with the names of their headers.

    Accepts `Authorization: Bearer K`, bare `Authorization: K`, `x-api-key: K` and the configured header.
    """
    return [
        (_SPELLED.get(name) or name.decode("latin-1"), key)
        for name in (b"authorization", b"x-api-key", extra_header)
        if name is not None and (value := headers.get(name)) and (key := _strip(value))
    ]


def _strip(value: bytes) -> bytes:
    scheme, _, rest = value.strip().partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else value.strip()


def authenticate(headers: dict[bytes, bytes], ring: Keyring, now: float, extra_header: bytes | None) -> KeyRecord:
    """Return the record of the first valid key in a request's headers. Raises GatewayError 401.

    Each is tried, because clients send placeholders: SDKs that want an `x-api-key` beside the bearer key they were
    given, and proxies of a platform (RunPod) that use Authorization themselves. With two valid keys Authorization's
    counts.
    """
    presented = presented_keys(headers, extra_header)
    if not presented:
        raise GatewayError(
            "invalid_api_key", "Missing API key. Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
        )
    for _, key in presented:
        record = ring.match(key, now)
        if record is not None:
            return record
    names = " and ".join(name for name, _ in presented)
    message = f"Invalid or expired API key in the header{'s' * (len(presented) > 1)} {names}."
    raise WrongKeyError("invalid_api_key", message)


def is_local(peer: str, headers: dict[bytes, bytes]) -> bool:
    """Return whether a request comes from a program of this machine, and not through a proxy there."""
    return is_loopback(peer.removeprefix(_MAPPED)) and not any(
        name in _FORWARDED or name.startswith((b"x-forwarded-", b"x-envoy-")) for name in headers
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
