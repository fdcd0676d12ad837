"""Who calls: finds the key in a request and checks what it may do. Pure but for the ring it is handed.

Fails closed: without a usable key in the ring every call that needs one is refused, whatever the reason. The answer is
the same for missing, malformed, unknown and expired keys but for the hint how to send one.
"""

from __future__ import annotations

import datetime as dt

from llama_gguf.api_errors import GatewayError
from llama_gguf.keys.keyring import Keyring
from llama_gguf.keys.record import KeyRecord
from llama_gguf.settings.sections.scope import Scope

_BEARER = b"bearer "

ANONYMOUS = KeyRecord(
    id="anonymous",
    digest="0" * 64,
    prefix="",
    created=dt.datetime.fromtimestamp(0, dt.UTC),
    scopes=frozenset({"inference", "metrics"}),
)
"""Who calls where no keys are wanted: the limits' defaults apply, and nobody is an admin."""


def present_key(headers: dict[bytes, bytes], extra_header: bytes | None) -> bytes:
    """Return the key a request carries, b"" if none.

    `Authorization: Bearer K`, bare `Authorization: K`, `x-api-key: K` and the configured header. The special headers
    win: platforms in front (RunPod) take Authorization for themselves.
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
    """Return the record of the key a request carries. Raises GatewayError 401."""
    presented = present_key(headers, extra_header)
    if not presented:
        raise GatewayError(
            "invalid_api_key", "No API key was sent. Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
        )
    record = ring.match(presented, now)
    if record is None:
        raise GatewayError("invalid_api_key", "The API key is not valid here, or has expired.")
    return record


def require_scope(record: KeyRecord, scope: Scope) -> None:
    """Check that a key may call routes of `scope`; `admin` may see metrics too. Raises GatewayError 403."""
    if scope in record.scopes or (scope == "metrics" and "admin" in record.scopes):
        return
    raise GatewayError("insufficient_scope", f"This API key lacks the scope `{scope}`.")


def require_model(record: KeyRecord | None, asked: str, served: tuple[str, ...]) -> str:
    """Return the served name of the model a request is for; the first where it names none or an unknown one.

    A key limited to some models must get exactly what it names. Raises GatewayError 404.
    """
    name = asked if asked in served else served[0]
    if record is None or record.models is None:
        return name
    if (asked in served or not asked) and name in record.models:
        return name
    raise GatewayError(
        "model_not_found",
        f"The model {asked or name!r} does not exist, or this API key may not use it.",
        param="model",
    )
