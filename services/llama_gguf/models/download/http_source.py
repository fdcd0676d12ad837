"""The network's side of a download: connections, redirects, and what goes wrong with them, in words.

aiohttp's exceptions are known here only and become `BrokenError`, whose text holds no address: theirs quote whole
ones, and a query can carry a signature.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import ClientResponse
from yarl import URL

_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 10
_MAY_HAVE_EXPIRED = {400, 401, 403, 404, 410}  # what stores answer when a signed address is too old
_SENDABLE = re.compile(r"[!-~]+")
_READ_BUFFER_BYTES = 512 * 1024
_MOST_HEADER_BYTES = 64 * 1024  # signed addresses are long


class BrokenError(Exception):
    """No answer, or one that broke off; the text is fit for messages. `permanent`: trying again cannot help."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class BadAddressError(Exception):
    """An address that cannot be asked."""


def new_session(connect_seconds: float, stall_seconds: float) -> aiohttp.ClientSession:
    """Return a session for downloads: bytes as they are, proxies from the environment, the system's certificates."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=stall_seconds),
        headers={"User-Agent": "llama-gguf-inference", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=True,
        read_bufsize=_READ_BUFFER_BYTES,
        max_line_size=_MOST_HEADER_BYTES,
        max_field_size=_MOST_HEADER_BYTES,
    )


async def body(response: ClientResponse) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of the body as they come. Raises BrokenError when it breaks off."""
    try:
        async for chunk, _ in response.content.iter_chunks():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise BrokenError(_reason(error)) from error


@dataclass(frozen=True, slots=True)
class _Target:
    url: URL
    headers: Mapping[str, str] = field(repr=False)


class Source:
    """One file at an address. Where it redirects to is kept for further questions, until it is refused there."""

    def __init__(self, session: aiohttp.ClientSession, url: str, credentials: Mapping[str, str]) -> None:
        self._session = session
        self._origin = _Target(_parsed(url), credentials)
        self._target: _Target | None = None

    @asynccontextmanager
    async def ask(self, headers: Mapping[str, str]) -> AsyncIterator[ClientResponse]:
        """Yield the answer to a GET with `headers`. Raises BrokenError and BadAddressError."""
        response = await self._ask(headers)
        try:
            yield response
        finally:
            response.release()  # which closes the connection unless the body was read to its end

    async def _ask(self, headers: Mapping[str, str]) -> ClientResponse:
        while (target := self._target) is not None:
            response = await self._get(target, headers)
            if response.status not in _MAY_HAVE_EXPIRED:
                return response
            response.close()
            if self._target is target:  # else somebody else has asked for a new address meanwhile
                self._target = None
        response = await self._follow(headers)
        if response.status in _MAY_HAVE_EXPIRED and self._target:  # keys change just between the two questions, too
            response.close()
            response = await self._follow(headers)
        return response

    async def _follow(self, headers: Mapping[str, str]) -> ClientResponse:
        """Ask at the origin, and where it sends us."""
        target = self._origin
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._get(target, headers)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                self._target = target if target is not self._origin else None
                return response
            response.release()
            target = _redirected(target, location)
        raise BrokenError(f"more than {_MOST_REDIRECTS} redirects", permanent=True)

    async def _get(self, target: _Target, headers: Mapping[str, str]) -> ClientResponse:
        try:
            return await self._session.get(target.url, headers={**target.headers, **headers}, allow_redirects=False)
        except aiohttp.InvalidURL as error:
            raise BadAddressError from error
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenError(_reason(error)) from error
        except ValueError as error:  # a token beside a password in the address
            raise BadAddressError from error


def _redirected(target: _Target, location: str) -> _Target:
    try:
        url = target.url.join(_parsed(location))
    except (BadAddressError, ValueError) as error:
        raise BrokenError("redirects to no usable address", permanent=True) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise BrokenError(f"redirects to {url.scheme or 'no'}:, not to http: or https:", permanent=True)
    same_host = url.origin() == target.url.origin()
    return _Target(url, target.headers if same_host else {})  # credentials stay behind


def _parsed(url: str) -> URL:
    """Return `url` byte for byte where that can be sent: a signature covers how it is escaped."""
    try:
        parsed = URL(url, encoded=_SENDABLE.fullmatch(url) is not None)
        _ = parsed.port  # looked at only now
    except ValueError as error:
        raise BadAddressError from error
    return parsed


def _reason(error: Exception) -> str:  # noqa: PLR0911 - a table
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "the server does not answer"
        case asyncio.TimeoutError():
            return "no bytes came for too long"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"no secure connection to {error.host}: {_tls_reason(error)}"
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} cannot be resolved"
        case aiohttp.ClientConnectorError():  # to the proxy, where there is one
            return f"no connection to {error.host}:{error.port}: {_system_reason(error.os_error)}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status}"
        case aiohttp.ClientResponseError():
            return "the answer is not proper HTTP"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return "the connection was closed in the middle"
        case OSError():
            return _system_reason(error)
    return type(error).__name__


def _tls_reason(error: aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError) -> str:
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return getattr(cause, "reason", None) or type(cause).__name__


def _system_reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__
