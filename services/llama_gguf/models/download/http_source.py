"""The network side of a download: connections, redirects, and their failures as messages.

aiohttp's exceptions are known only here and become `DownloadInterruptedError`, whose text contains no URL: theirs quote
complete ones, and a query can contain a signature.
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
_MAX_REDIRECTS = 10
_MAY_HAVE_EXPIRED = {400, 401, 403, 404, 410}  # statuses of object stores when a signed URL has expired
_SENDABLE = re.compile(r"[!-~]+")
_READ_BUFFER_BYTES = 512 * 1024
_MAX_HEADER_BYTES = 64 * 1024  # signed URLs are long


class DownloadInterruptedError(Exception):
    """No response, or an incomplete one; the text is fit for messages. `permanent`: trying again cannot help."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class InvalidUrlError(Exception):
    """A URL that is not valid."""


def new_session(connect_seconds: float, stall_seconds: float) -> aiohttp.ClientSession:
    """Return a session for downloads: no decompression, proxies from the environment, the system's certificates."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=stall_seconds),
        headers={"User-Agent": "llama-gguf-inference", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=True,
        read_bufsize=_READ_BUFFER_BYTES,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )


async def body(response: ClientResponse) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of the body as they arrive. Raises DownloadInterruptedError when it is incomplete."""
    try:
        async for chunk, _ in response.content.iter_chunks():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise DownloadInterruptedError(_reason(error)) from error


@dataclass(frozen=True, slots=True)
class _Target:
    url: URL
    headers: Mapping[str, str] = field(repr=False)


class HttpSource:
    """One file at a URL. The target of its redirects is used for further requests, until it expires."""

    def __init__(self, session: aiohttp.ClientSession, url: str, credentials: Mapping[str, str]) -> None:
        self._session = session
        self._origin = _Target(_parsed(url), credentials)
        self._target: _Target | None = None

    @asynccontextmanager
    async def get(self, headers: Mapping[str, str]) -> AsyncIterator[ClientResponse]:
        """Yield the response to a GET with `headers`. Raises DownloadInterruptedError and InvalidUrlError."""
        response = await self._get(headers)
        try:
            yield response
        finally:
            response.release()  # which closes the connection unless the body was read to its end

    async def _get(self, headers: Mapping[str, str]) -> ClientResponse:
        while (target := self._target) is not None:
            response = await self._send(target, headers)
            if response.status not in _MAY_HAVE_EXPIRED:
                return response
            response.close()
            if self._target is target:  # else another connection has got a new URL meanwhile
                self._target = None
        response = await self._follow_redirects(headers)
        if response.status in _MAY_HAVE_EXPIRED and self._target:  # a signature can expire between the two requests
            response.close()
            response = await self._follow_redirects(headers)
        return response

    async def _follow_redirects(self, headers: Mapping[str, str]) -> ClientResponse:
        """Send the request to the origin, and to where that redirects."""
        target = self._origin
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._send(target, headers)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                self._target = target if target is not self._origin else None
                return response
            response.release()
            target = _redirected(target, location)
        raise DownloadInterruptedError(f"more than {_MAX_REDIRECTS} redirects", permanent=True)

    async def _send(self, target: _Target, headers: Mapping[str, str]) -> ClientResponse:
        try:
            return await self._session.get(target.url, headers={**target.headers, **headers}, allow_redirects=False)
        except aiohttp.InvalidURL as error:
            raise InvalidUrlError from error
        except (aiohttp.ClientError, OSError) as error:
            raise DownloadInterruptedError(_reason(error)) from error
        except ValueError as error:  # a token beside a password in the URL
            raise InvalidUrlError from error


def _redirected(target: _Target, location: str) -> _Target:
    try:
        url = target.url.join(_parsed(location))
    except (InvalidUrlError, ValueError) as error:
        raise DownloadInterruptedError("redirects to an invalid URL", permanent=True) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise DownloadInterruptedError(f"redirects to {url.scheme or 'no'}: instead of http: or https:", permanent=True)
    same_host = url.origin() == target.url.origin()
    return _Target(url, target.headers if same_host else {})  # credentials stay behind


def _parsed(url: str) -> URL:
    """Return `url` unchanged where it can be sent so: a signature covers its escaping."""
    try:
        parsed = URL(url, encoded=_SENDABLE.fullmatch(url) is not None)
        _ = parsed.port  # not validated before it is read
    except ValueError as error:
        raise InvalidUrlError from error
    return parsed


def _reason(error: Exception) -> str:  # noqa: PLR0911 - a table
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "the server does not respond"
        case asyncio.TimeoutError():
            return "timed out waiting for data"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"TLS connection to {error.host} failed: {_tls_reason(error)}"
        case aiohttp.ClientConnectorDNSError():
            return f"cannot resolve the host name {error.host}"
        case aiohttp.ClientConnectorError():  # to the proxy, where there is one
            return f"cannot connect to {error.host}:{error.port}: {_system_reason(error.os_error)}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy responded with {error.status}"
        case aiohttp.ClientResponseError():
            return "the response is not valid HTTP"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return "the connection was closed before the response was complete"
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
