"""Stop sequences: blank ones are left out. Pure.

The engine ends an answer at a blank one after its first token; clients send it for "none".
"""

from __future__ import annotations

from typing import Any

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.refusal import kind, refusal


def drop_blank_stops(body: dict[str, Any], name: str, changes: Changes) -> None:
    """Leave out what cannot stop anything in the field `name`: blank texts, null, repetitions. Raises GatewayError."""
    value = body[name]
    if isinstance(value, str) and value:
        return
    texts = value if isinstance(value, list) else [] if value in ("", None) else None
    if texts is None:
        raise refusal(name, f"must be a string or a list of strings, not {kind(value)}.")
    for index, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise refusal(f"{name}[{index}]", f"must be a string, not {kind(text)}.")
    kept = list(dict.fromkeys(text for text in texts if text))
    if value == kept and kept:
        return
    changes.changed = True
    if kept:
        body[name] = kept
    else:
        del body[name]
