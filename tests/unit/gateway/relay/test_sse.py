"""Reading the end of a passing answer."""

from __future__ import annotations

import json

import pytest

from llama_gguf.gateway.http1.chunked import chunk
from llama_gguf.gateway.relay.sse import message_start
from llama_gguf.gateway.tokens.observer import EVENT_END, EVENT_END_FRAMED


@pytest.mark.parametrize("framed", [False, True])
def test_a_missing_message_start_is_made_up_for(framed: bool) -> None:
    for name in (b"content_block_start", b"content_block_delta", b"message_delta"):
        event = b"event: " + name + b"\ndata: {}\n\n"
        made = message_start(chunk(event) if framed else event, "tiny", "req-1", framed=framed)
        assert made.endswith(EVENT_END_FRAMED if framed else EVENT_END)
        value = json.loads(made.split(b"data: ")[1].split(b"\n\n")[0])
        assert (value["type"], value["message"]["id"], value["message"]["model"]) == (
            "message_start",
            "msg_req-1",
            "tiny",
        )
    for event in (b"event: message_start\ndata: {}\n\n", b"event: error\ndata: {}\n\n", b"event: cont", b""):
        assert message_start(event, "tiny", "req-1", framed=framed) == b""
