"""Events are translated one by one; everything else in a stream passes as it is."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.gateway.translate.translation import translate_body, translate_events


class Doubling:
    """Sends each event twice, with its number."""

    def body(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {"seen": True}

    def events(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        return [data | {"n": 1}, data | {"n": 2}]


@pytest.mark.parametrize(
    ("sent", "translated"),
    [
        (b'data: {"a":1}\n\n', b'data: {"a":1,"n":1}\n\ndata: {"a":1,"n":2}\n\n'),
        (
            b'event: x\ndata: {"type":"x"}\n\n',
            b'event: x\ndata: {"type":"x","n":1}\n\nevent: x\ndata: {"type":"x","n":2}\n\n',
        ),
        (b'data: {"a":"data: "}\n\n', b'data: {"a":"data: ","n":1}\n\ndata: {"a":"data: ","n":2}\n\n'),
        (b": ping\n\n", b": ping\n\n"),
        (b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
        (b"data: {broken\n\n", b"data: {broken\n\n"),
        (b'data: {"a":1', b'data: {"a":1'),
        (b"", b""),
    ],
)
def test_events(sent: bytes, translated: bytes) -> None:
    assert translate_events(Doubling(), sent) == translated
    assert translate_events(Doubling(), b": ping\n\n" + sent) == b": ping\n\n" + translated


@pytest.mark.parametrize(
    ("raw", "translated"), [(b'{"a":1}', b'{"a":1,"seen":true}'), (b"[1]", b"[1]"), (b"no", b"no")]
)
def test_bodies(raw: bytes, translated: bytes) -> None:
    assert translate_body(Doubling(), raw) == translated
