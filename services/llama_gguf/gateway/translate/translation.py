"""What a translation of an answer is, and how it is applied to the complete events of a stream. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import orjson

_EVENT_END = b"\n\n"
_DATA = b"data: "


class Translation(Protocol):
    """Translates one answer. Has the state of one request."""

    def body(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer that is not streamed."""

    def events(self, data: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Return the events that stand for the next one of the engine's stream."""


def translate_body(translation: Translation, raw: bytes) -> bytes:
    """Translate an answer that is not streamed; what is no JSON object stays as it is."""
    answer = _object(raw)
    return raw if answer is None else orjson.dumps(translation.body(answer))


def translate_events(translation: Translation, data: bytes) -> bytes:
    """Translate complete events. What is no JSON object stays as it is: comments, `[DONE]`, an incomplete event."""
    *events, rest = data.split(_EVENT_END)
    return b"".join([_translate_event(translation, event) for event in events]) + rest


def _translate_event(translation: Translation, event: bytes) -> bytes:
    # Raw line ends cannot occur inside an event's JSON, so the last line that begins so is the data.
    name, found, raw = event.rpartition(b"\n" + _DATA) if event.startswith(b"event: ") else event.partition(_DATA)
    data = _object(raw) if found else None
    if data is None:
        return event + _EVENT_END
    written = []
    for new in translation.events(data):
        line = b"event: %b\n" % new["type"].encode("ascii", "replace") if name and "type" in new else b""
        written.append(b"%bdata: %b\n\n" % (line, orjson.dumps(new)))
    return b"".join(written)


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
