"""Writes of one turn of the loop, made together."""

from __future__ import annotations

import asyncio
from typing import cast

from llama_gguf.gateway.http1.write_batch import WriteBatch


class Sink:
    """Stands in for a transport: remembers what is written, and in which order among others."""

    def __init__(self, name: str, log: list[tuple[str, bytes]]) -> None:
        self.name = name
        self.log = log
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.log.append((self.name, data))


async def test_writes_go_out_in_order_once_the_turn_is_over() -> None:
    log: list[tuple[str, bytes]] = []
    one, two = (cast("asyncio.Transport", Sink(name, log)) for name in "ab")
    batch = WriteBatch()
    for transport, data in ((one, b"1"), (two, b"2"), (one, b"3")):
        batch.write(transport, data)
    assert log == []
    await asyncio.sleep(0)
    assert log == [("a", b"1"), ("b", b"2"), ("a", b"3")]
    batch.write(two, b"4")
    await asyncio.sleep(0)
    assert log[3:] == [("b", b"4")]


async def test_what_is_flushed_is_not_written_twice_and_a_closing_connection_gets_nothing() -> None:
    log: list[tuple[str, bytes]] = []
    gone, there = Sink("gone", log), Sink("there", log)
    batch = WriteBatch()
    batch.write(cast("asyncio.Transport", gone), b"1")
    batch.write(cast("asyncio.Transport", there), b"2")
    gone.closing = True
    batch.flush()
    await asyncio.sleep(0)
    assert log == [("there", b"2")]
