"""Addresses to listen on: wildcard and loopback addresses, and how to connect to them from this machine."""

from __future__ import annotations

import ipaddress
import socket

EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - compared with, and a default
LOOPBACK = "127.0.0.1"
_WILDCARDS = {EVERY_INTERFACE: LOOPBACK, "::": "::1"}  # image/scripts/healthcheck.py has to have a copy


def is_wildcard(host: str) -> bool:
    """Return whether a server on `host` listens on every interface."""
    return host in _WILDCARDS


def is_loopback(host: str) -> bool:
    """Return whether only programs on the same machine, or in the same container, can connect to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:  # what a socket takes too, such as 127.1
        return ipaddress.IPv4Address(socket.inet_aton(host)).is_loopback
    except OSError:
        return False


def from_here(host: str) -> str:
    """Return the address for connecting from this machine to a server that listens on `host`."""
    return _WILDCARDS.get(host, host)
