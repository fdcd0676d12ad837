"""Which proxy a request goes through, from the environment. Pure.

The only reader of these variables: each HTTP library reads them in its own way, and one download uses two. The lower
case wins over the upper, `https_proxy` over `all_proxy`, and blank values count as unset. A value without a scheme is
an HTTP proxy. Requests to this machine itself are never sent to a proxy. Values can contain a password, so no message
quotes one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from llama_gguf.errors import ConfigError
from llama_gguf.settings.environment_value import clean
from llama_gguf.settings.hosts import is_loopback

ProxyScheme = Literal["http", "https", "socks5"]

# `socks:` is what GNOME writes. With each of them the proxy resolves the names, as curl does for socks5h: a container
# behind such a proxy has no other DNS.
_SCHEMES: Mapping[str, ProxyScheme] = {
    "http": "http",
    "https": "https",
    "socks5": "socks5",
    "socks5h": "socks5",
    "socks": "socks5",
}
_PORTS: Mapping[ProxyScheme, int] = {"http": 80, "https": 443, "socks5": 1080}
_TARGET_PORTS = {"http": 80, "https": 443}
_HINT = "write it as http://host:port or socks5://user:password@host:port, with special characters percent-encoded"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable that names it."""

    scheme: ProxyScheme
    host: str
    port: int
    variable: str
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """Its URL without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def description(self) -> str:
        """Its URL and its variable, for messages."""
        return f"{self.address} ({self.variable})"


def proxy_for(url: str, env: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a request to `url`, None for a direct connection. Raises ConfigError for an invalid one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    port = parts.port or _TARGET_PORTS.get(parts.scheme, 0)
    if not host or is_loopback(host) or _is_excluded(host, port, _first(env, "no_proxy")[1]):
        return None
    for kind in (f"{parts.scheme}_proxy", "all_proxy"):
        variable, text = _first(env, kind)
        if text:
            return _parsed(variable, text)
    return None


def _first(env: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return the first of the lower-case and the upper-case variable that is not blank, and its value."""
    found = ((variable, clean(env.get(variable, "")).text) for variable in (name, name.upper()))
    return next(((variable, text) for variable, text in found if text), (name, ""))


def _parsed(variable: str, text: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # its text can quote the value
        raise ConfigError(f"{variable}: not the URL of a proxy", hint=_HINT) from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        known = ", ".join(_SCHEMES)
        raise ConfigError(f"{variable}: {parts.scheme} proxies are not supported, only {known}", hint=_HINT)
    if parts.path.strip("/") or parts.query or parts.fragment:  # such as those of a password, which is cut there
        raise ConfigError(f"{variable}: not the URL of a proxy: something follows its port", hint=_HINT)
    if not host or re.search(r"[^\w.:%-]", host):
        raise ConfigError(f"{variable}: the URL of the proxy has no valid host", hint=_HINT)
    return Proxy(
        scheme,
        host,
        port or _PORTS[scheme],
        variable,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def _is_excluded(host: str, port: int, no_proxy: str) -> bool:
    """Return whether `no_proxy` lists `host`: a name with its subdomains, an address, a network, each with a port or
    without, or `*` for all.
    """
    return any(_matches(entry.lower(), host, port) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if found := re.fullmatch(r"(\[[^]]+\]|[^:]+):(\d+)", entry):
        if int(found[2]) != port:
            return False
        entry = found[1]
    entry = entry.strip("[]")
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
