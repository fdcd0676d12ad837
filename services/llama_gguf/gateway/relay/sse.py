"""The gateway's own server-sent events, sent among the engine's."""

from __future__ import annotations

import re

import orjson

from llama_gguf.gateway.http1.chunked import chunk

_LATER_EVENT = re.compile(rb"(?:[0-9a-fA-F]+\r\n)?event: (?:content_block_|message_delta)")
KEEPALIVE_EVENT = b": keep-alive\n\n"
_COMMENTS = re.compile(rb"(?::[^\n]*\n\n)*+")
_COMMENTS_FRAMED = re.compile(rb"(?:[0-9a-fA-F]+\r\n:[^\n]*\n\n\r\n)*+")


def comments_length(data: bytes, *, framed: bool) -> int:
    """Return the length of the complete comments at the start of `data`; `framed`: each is a chunk.

    The engine sends one every half minute while it has no event.
    """
    found = (_COMMENTS_FRAMED if framed else _COMMENTS).match(data)
    return found.end() if found is not None else 0


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
