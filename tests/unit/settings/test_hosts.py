from __future__ import annotations

import pytest

from llama_gguf.settings.hosts import from_here, is_loopback, is_wildcard


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "127.1", "::1", "0:0:0:0:0:0:0:1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert from_here(host) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "127.example.com", "box", "", "10.1"])
def test_what_others_can_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "::1")])
def test_a_wildcard_is_reached_by_loopback_of_its_family(host: str, reached: str) -> None:
    assert is_wildcard(host)
    assert not is_wildcard(reached)
    assert from_here(host) == reached
