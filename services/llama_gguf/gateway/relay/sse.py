"""The gateway's own server-sent events, sent among the engine's."""

from __future__ import annotations

import re

import orjson

from llama_gguf.gateway.http1.chunked import chunk

_LATER_EVENT = re.compile(rb"(?:[0-9a-fA-F]+\r\n)?event: (?:content_block_|message_delta)")
KEEPALIVE_EVENT = b": keep-alive\n\n"
PINGS = frozenset({b":\n\n", b"3\r\n:\n\n\r\n"})
"""Comments that the engine sends every half minute while it has no event."""


def message_start(data: bytes, model: str, request_id: str, *, framed: bool) -> bytes:
    """Return the message_start event missing before `data`, the first event of an Anthropic stream, or nothing.

    llama-server omits it if its first token is not a complete character (many emoji), and the official client then
    fails. The length of the prompt is not known before the end, so `input_tokens` is 0.
    """
    if not _LATER_EVENT.match(data):
        return b""
    usage = {"input_tokens": 0, "output_tokens": 0}
    message: dict[str, object] = {"id": f"msg_{request_id}", "type": "message", "role": "assistant", "model": model}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    event = b"event: message_start\ndata: %b\n\n" % orjson.dumps({"type": "message_start", "message": message})
    return chunk(event) if framed else event
