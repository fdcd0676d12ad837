"""The gateway's sockets."""

from __future__ import annotations

import socket

import pytest

from llama_gguf.errors import LaunchError
from llama_gguf.gateway import server


def test_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = server.listen("127.0.0.1", 0)
    assert sockets[0].proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's delays on
    port = sockets[0].getsockname()[1]
    with pytest.raises(LaunchError, match=str(port)):
        server.listen("127.0.0.1", port)
    for sock in sockets:
        sock.close()
    both = server.listen("localhost", 0)
    for sock in both:
        sock.close()
