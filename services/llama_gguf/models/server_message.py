"""What a server says about a request that it refuses: its message fit to be shown, and when to try again. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from llama_gguf.logs import clean
from llama_gguf.settings.redaction import mask_known, mask_text

_TRANSIENT_BELOW_500 = {408, 425, 429}
_PERMANENT_FROM_500 = {501, 505, 506, 508, 510, 511}  # what the server cannot do, or a network that wants a login
MAX_MESSAGE_BYTES = 4096
"""How much of a response's body is read for its message."""
_MAX_SHOWN = 200
_XML_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_QUERY = re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]*")


def is_transient(status: int) -> bool:
    """Return whether the same request can succeed later; also after a proxy's own statuses, such as 522."""
    return status in _TRANSIENT_BELOW_500 or (status >= 500 and status not in _PERMANENT_FROM_500)


def server_says(text: str, secrets: Iterable[str]) -> str:
    """Return `: "TEXT"` on one line, bounded, without secrets and control characters; "" for no text."""
    text = mask_text(mask_known(_QUERY.sub(r"\1", text), secrets))
    shown = " ".join(clean(" ".join(text.split())).split())
    if len(shown) > _MAX_SHOWN:
        shown = shown[: _MAX_SHOWN - 1] + "…"
    return f": {shown}" if shown else ""


def message_of(headers: Mapping[str, str], body: bytes) -> str:
    """Return the message of an error response: the hub's header, an error in JSON, an object store's XML, or text."""
    if header := headers.get("X-Error-Message", ""):
        return header
    text = body[:MAX_MESSAGE_BYTES].decode(errors="replace").strip()
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind.endswith("json"):
        return _json_message(text)
    if kind.endswith("xml"):
        found = _XML_MESSAGE.search(text)
        return found[1] if found else ""
    return text if kind == "text/plain" else ""  # a web page is no message


def _json_message(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    for name in ("error", "message", "detail"):
        value = found.get(name) if isinstance(found, dict) else None
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str):
            return value
    return ""


def retry_after_seconds(value: str, now: datetime | None = None) -> float | None:
    """Return the seconds in a Retry-After header, which has a number or a date; None without a valid one."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - an engine whose model is on disk needs none of it

    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
