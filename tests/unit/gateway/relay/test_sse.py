"""Reading the end of a passing answer."""

from __future__ import annotations

import json

import pytest

from llama_gguf.gateway.http1.chunked import chunk
from llama_gguf.gateway.relay.sse import comments_length, message_start
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


@pytest.mark.parametrize("framed", [False, True])
def test_comments_are_told_from_events(framed: bool) -> None:
    def sent(*events: bytes) -> bytes:
        return b"".join(chunk(event) if framed else event for event in events)

    ping, named, event = b":\n\n", b": still at it\n\n", b"data: {}\n\n"
    assert comments_length(sent(ping, named, event, ping), framed=framed) == len(sent(ping, named))
    for data in (b"", sent(event), sent(ping)[:-1], b"data:\n\n", b":"):
        assert comments_length(data, framed=framed) == 0
    assert comments_length(sent(ping) * 100_000, framed=framed) == 100_000 * len(sent(ping))
