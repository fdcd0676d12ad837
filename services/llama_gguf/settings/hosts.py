"""Addresses to listen on: wildcard and loopback addresses, and how to connect to them from this machine."""

from __future__ import annotations

import ipaddress

EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - compared with, and a default
LOOPBACK = "127.0.0.1"
_WILDCARDS = {EVERY_INTERFACE: LOOPBACK, "::": "::1"}  # image/scripts/healthcheck.py has to have a copy


def is_wildcard(host: str) -> bool:
    """Return whether a server on `host` listens on every interface."""
    return host in _WILDCARDS


def is_loopback(host: str) -> bool:
    """Return whether only programs on the same machine, or in the same container, can connect to `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def from_here(host: str) -> str:
    """Return the address for connecting from this machine to a server that listens on `host`."""
    return _WILDCARDS.get(host, host)
