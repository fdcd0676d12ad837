"""Server-sent events of the gateway's own, in the middle of the engine's."""

from __future__ import annotations

import re

import orjson

from llama_gguf.gateway.http1.chunked import chunk

_MIDDLE = re.compile(rb"(?:[0-9a-fA-F]+\r\n)?event: (?:content_block_|message_delta)")
KEEPALIVE_EVENT = b": keep-alive\n\n"
PINGS = frozenset({b":\n\n", b"3\r\n:\n\n\r\n"})
"""What the engine sends every half a minute while it has nothing to say."""


def message_start(data: bytes, model: str, identity: str, *, framed: bool) -> bytes:
    """Return the event that must stand before `data`, the first of an Anthropic stream; empty where it is there.

    llama-server leaves it out when its first token is no whole character (many an emoji), and the official client
    then gives up. How long the prompt was is not told before the end, so it says 0.
    """
    if not _MIDDLE.match(data):
        return b""
    usage = {"input_tokens": 0, "output_tokens": 0}
    message: dict[str, object] = {"id": f"msg_{identity}", "type": "message", "role": "assistant", "model": model}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    event = b"event: message_start\ndata: %b\n\n" % orjson.dumps({"type": "message_start", "message": message})
    return chunk(event) if framed else event
