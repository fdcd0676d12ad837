"""Which connections a server gives up when too many are open that ask for nothing. Pure.

The server closes the ones that have been idle longest, of the peer that has most of them. So whoever opens many loses
their own, and a new connection is always accepted: closing the newest instead lets idle ones shut everybody out.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

ConnectionT = TypeVar("ConnectionT")

_SPARE = 16
"""When it is full, a sixteenth is given up at once: choosing looks at all, and is not worth it for each."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections may be open without a request in progress."""

    in_all: int
    per_peer: int


@dataclass(frozen=True, slots=True)
class Idle(Generic[ConnectionT]):
    """A connection without a request in progress: whose it is (`peer_of`), and since when."""

    connection: ConnectionT
    peer: str
    since: float


def peer_of(host: str) -> str:
    """Return who is at the other end of a socket, from its IP address: the same, or the /64 of an IPv6 one.

    A client of IPv6 usually has a whole /64, so single addresses would not count as the same peer.
    """
    if ":" not in host:
        return host
    found = ipaddress.IPv6Address(host.partition("%")[0])
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(found) >> 64 << 64))


def host_of(address: object) -> str:
    """Return the IP address of the other end, from what a socket says it is; "" for a unix socket."""
    return str(address[0]) if isinstance(address, tuple) else ""


def to_give_up(idle: Iterable[Idle[ConnectionT]], limits: ConnectionLimits) -> list[ConnectionT]:
    """Return the connections to close; none if there are no more than `limits` allows."""
    by_peer: dict[str, list[Idle[ConnectionT]]] = {}
    for found in sorted(idle, key=lambda one: one.since, reverse=True):
        by_peer.setdefault(found.peer, []).append(found)
    chosen: list[ConnectionT] = []
    for of_peer in by_peer.values():
        if len(of_peer) > limits.per_peer:
            target = limits.per_peer - limits.per_peer // _SPARE
            chosen += [found.connection for found in of_peer[target:]]
            del of_peer[target:]
    counts = Counter({peer: len(of_peer) for peer, of_peer in by_peer.items()})
    total = counts.total()
    if total > limits.in_all:
        for _ in range(total - limits.in_all + limits.in_all // _SPARE):
            peer = max(counts, key=counts.__getitem__)
            counts[peer] -= 1
            chosen.append(by_peer[peer].pop().connection)
    return chosen
