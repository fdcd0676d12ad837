"""supervisord's event protocol."""

from __future__ import annotations

import io

import pytest

from llama_gguf.runtime.event_protocol import serve


def event(name: str, payload: bytes) -> bytes:
    return f"ver:3.0 server:x serial:1 pool:l poolserial:1 eventname:{name} len:{len(payload)}\n".encode() + payload


def test_each_event_is_handled_and_acknowledged_until_the_end() -> None:
    handled: list[tuple[str, dict[str, str]]] = []
    events = event("PROCESS_STATE_EXITED", b"processname:gateway pid:9") + event("PROCESS_STATE_FATAL", b"a:b:c")
    out = io.BytesIO()
    serve(io.BytesIO(events), out, lambda state, payload: handled.append((state, payload)))
    assert handled == [("EXITED", {"processname": "gateway", "pid": "9"}), ("FATAL", {"a": "b:c"})]
    assert out.getvalue() == b"READY\nRESULT 2\nOKREADY\nRESULT 2\nOKREADY\n"


def test_an_event_that_could_not_be_handled_is_not_acknowledged() -> None:
    def fail(_state: str, _payload: dict[str, str]) -> None:
        raise OSError("no space left")

    out = io.BytesIO()
    with pytest.raises(OSError, match="no space"):
        serve(io.BytesIO(event("PROCESS_STATE_FATAL", b"")), out, fail)
    assert out.getvalue() == b"READY\n"
