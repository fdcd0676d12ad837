"""Checks of the servers: ports, hosts, CORS origins, headers, limits, the platform's limits. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from llama_gguf.errors import Problem
from llama_gguf.settings.health_paths import LIVE, PING, READY, STARTUP
from llama_gguf.settings.hosts import EVERY_INTERFACE, LOOPBACK, is_loopback, is_wildcard
from llama_gguf.settings.messages.hints import without_curly_quotes
from llama_gguf.settings.platform import RUNPOD_MAX_BODY_BYTES, RUNPOD_MAX_REQUEST_SECONDS
from llama_gguf.settings.redaction import mask_text, url_secrets
from llama_gguf.settings.sections.settings import Settings
from llama_gguf.settings.sections.sources import key_sources_of

_HOST_NAME = re.compile(r"^(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$")
_KEY_HEADERS = ("authorization", "x-api-key")
RESERVED_HEADERS = (
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "cookie",
    "origin",
    "te",
)
RESERVED_PATHS = (LIVE, READY, STARTUP)
_MAX_ORIGIN = 2048
_STORES = ("redis", "rediss")


def ports(settings: Settings) -> Iterator[Problem]:
    """Gateway and health server need different ports."""
    gateway, health = settings.gateway, settings.health
    same_host = gateway.host == health.host or is_wildcard(gateway.host) or is_wildcard(health.host)
    if gateway.port == health.port and same_host:
        setting, other = ("health.port", "gateway") if "port" in health.model_fields_set else ("gateway.port", "health")
        message = f"{setting}: {health.port} is also {other}.port"
        yield Problem("port-clash", message, setting, hint="give gateway.port and health.port different ports")


def hosts(settings: Settings) -> Iterator[Problem]:
    """A host is an IP address or a host name, without scheme and port."""
    for setting, host in (("gateway.host", settings.gateway.host), ("health.host", settings.health.host)):
        if not _is_address(host) and (not _HOST_NAME.match(host) or re.fullmatch(r"[\d.]+", host)):
            message = f'{setting}: expected an IP address or a host name, got "{mask_text(host)}"'
            hint = f"without scheme and port, as in {EVERY_INTERFACE}" if "://" in host or ":" in host else ""
            if host != without_curly_quotes(host):
                hint = f'did you mean "{without_curly_quotes(host)}"?'
            yield Problem("bad-host", message, setting, hint=hint)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def origins(settings: Settings) -> Iterator[Problem]:
    """An origin is `*` or scheme://host[:port], as browsers send it."""
    allowed = settings.gateway.cors.allow_origins
    for index, origin in enumerate(allowed):
        if origin != "*" and not _is_origin(origin):
            message = f'gateway.cors.allow_origins[{index}]: "{mask_text(origin)}" is not an origin'
            hint = "as in https://app.example.com, without a path or a trailing slash"
            yield Problem("bad-origin", message, f"gateway.cors.allow_origins[{index}]", hint=hint)
    if "*" in allowed and len(allowed) > 1:
        message = 'gateway.cors.allow_origins: "*" allows every origin, so the others have no effect'
        yield Problem("no-effect", message, "gateway.cors.allow_origins", severity="warning")


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        bare = f"{parts.scheme}://{parts.netloc}"
        return (
            bool(parts.hostname) and bare == text and "@" not in text and "*" not in text and len(text) <= _MAX_ORIGIN
        )
    except ValueError:
        return False


def routes(settings: Settings) -> Iterator[Problem]:
    """At least one group of routes is open, and each is listed once."""
    listed = settings.gateway.routes
    if not listed:
        yield Problem("no-routes", "gateway.routes: is empty, so no request can succeed", "gateway.routes")
    for name, number in Counter(listed).items():
        if number > 1:
            yield Problem("duplicate-route", f"gateway.routes: {name} is listed twice", "gateway.routes")


def timeouts(settings: Settings) -> Iterator[Problem]:
    """The timeout of a stage does not exceed the total."""
    limits = settings.gateway.timeouts
    for name in ("connect_seconds", "first_byte_seconds", "idle_seconds"):
        value = getattr(limits, name)
        if value > limits.total_seconds:
            message = f"gateway.timeouts.{name}: {value:g} has no effect, total_seconds is {limits.total_seconds:g}"
            # REQUEST_TIMEOUT and short totals are common; a default above them is not the operator's mistake
            if name in limits.model_fields_set:
                yield Problem("no-effect", message, f"gateway.timeouts.{name}", severity="warning")


def key_header(settings: Settings) -> Iterator[Problem]:
    """The extra header is neither one that is always read nor one with another meaning."""
    header = settings.auth.extra_header
    if header is None:
        return
    if header.lower() in _KEY_HEADERS:
        message = f"auth.extra_header: {header} is always read"
        yield Problem("no-effect", message, "auth.extra_header", severity="warning")
    elif header.lower() in RESERVED_HEADERS:
        yield Problem("bad-header", f"auth.extra_header: {header} has another meaning in HTTP", "auth.extra_header")


def bootstrap(settings: Settings) -> Iterator[Problem]:
    """The first key has one source."""
    given = key_sources_of(settings.auth.bootstrap)
    if len(given) > 1:
        message = f"auth.bootstrap: {' and '.join(given)} are alternative sources of the first key"
        yield Problem("two-bootstraps", message, f"auth.bootstrap.{given[1]}", hint="keep only one of them")


def open_to_all(settings: Settings) -> Iterator[Problem]:
    """Warn if anyone can call."""
    if settings.auth.enabled:
        return
    if not is_loopback(settings.gateway.host):
        message = f"auth.enabled: without keys anyone who reaches {settings.gateway.host} can use the model"
        hint = f"set gateway.host to {LOOPBACK}, unless a proxy in front authenticates clients"
        yield Problem("open-to-all", message, "auth.enabled", hint=hint, severity="warning")
    if settings.metrics.require_key:  # not by default: nothing was asked for
        message = "metrics.require_key: has no effect while auth.enabled is false"
        yield Problem("no-effect", message, "metrics.require_key", severity="warning")


def queue(settings: Settings) -> Iterator[Problem]:
    """The queue limit per key does not exceed the queue."""
    limits = settings.limits.queue
    if limits.max_size and limits.max_size_per_key > limits.max_size:
        message = f"limits.queue.max_size_per_key: {limits.max_size_per_key} is more than max_size, {limits.max_size}"
        yield Problem("queue-per-key", message, "limits.queue.max_size_per_key")


def store(settings: Settings) -> Iterator[Problem]:
    """The store is `memory` or the URL of a Redis server, without its password."""
    url, password_env = settings.limits.store, settings.limits.store_password_env
    if url == "memory":
        if password_env:
            message = "limits.store_password_env: has no effect, the store is memory"
            yield Problem("no-effect", message, "limits.store_password_env", severity="warning")
        return
    if not _is_store(url):
        message = f'limits.store: expected `memory` or redis://host:port/db, got "{mask_text(url)}"'
        hint = "" if "://" in url else "as in redis://valkey:6379/0"
        yield Problem("bad-store", message, "limits.store", hint=hint)
    elif urlsplit(url).password or "token" in url_secrets(url):
        hint = "put the password in a variable, and set limits.store_password_env to the variable's name"
        yield Problem("secret-in-url", "limits.store: the URL contains a password", "limits.store", hint=hint)


def _is_store(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _STORES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def health_path(settings: Settings) -> Iterator[Problem]:
    """The platform's path is not one of the other endpoints."""
    if settings.health.path in RESERVED_PATHS:
        message = f"health.path: {settings.health.path} is another endpoint of the health server"
        yield Problem("path-clash", message, "health.path", hint=f"use {PING}, or another path")


def runpod(settings: Settings) -> Iterator[Problem]:
    """RunPod's own limits apply first."""
    if settings.health.platform != "runpod":
        return
    if settings.gateway.max_body_bytes > RUNPOD_MAX_BODY_BYTES:
        maximum = f"{RUNPOD_MAX_BODY_BYTES // 1_000_000} MB"
        message = f"gateway.max_body_bytes: RunPod's load balancer rejects bodies over {maximum}"
        yield Problem("platform-limit", message, "gateway.max_body_bytes", severity="warning")
    limits = settings.gateway.timeouts
    if limits.total_seconds > RUNPOD_MAX_REQUEST_SECONDS and "total_seconds" in limits.model_fields_set:
        seconds = f"{RUNPOD_MAX_REQUEST_SECONDS} s"
        message = f"gateway.timeouts.total_seconds: RunPod's load balancer aborts requests after {seconds}"
        yield Problem("platform-limit", message, "gateway.timeouts.total_seconds", severity="warning")
