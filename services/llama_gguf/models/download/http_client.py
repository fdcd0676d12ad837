"""The HTTP client of a download: one GET at a time, through the proxy that its URL needs.

aiohttp speaks to HTTP proxies itself; for SOCKS proxies aiohttp-socks makes its connections. The exceptions of both are
known only here and become `DownloadInterruptedError`, whose text contains no URL: theirs quote complete ones, and a
query can contain a signature.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import ClientResponse
from yarl import URL

from llama_gguf.models.network import FEW_ATTEMPTS, OWN_AUTHORITY_HINT, Network
from llama_gguf.models.server_message import MAX_MESSAGE_BYTES, message_of
from llama_gguf.settings.proxy import Proxy

_READ_BUFFER_BYTES = 512 * 1024
_MAX_HEADER_BYTES = 64 * 1024  # signed URLs are long
_MESSAGE_SECONDS = 5.0  # for what a server says about a refusal
_NO_SUCH_NAME = {socket.EAI_NONAME, socket.EAI_NODATA}  # EAI_AGAIN is that no name server responds
_PROXY_REFUSALS = {403, 407}  # what it answers to CONNECT: trying again cannot help


class DownloadInterruptedError(Exception):
    """No response, or an incomplete one; the texts are fit for messages.

    `permanent`: trying again cannot help; after `max_attempts` it is unlikely.
    """

    def __init__(
        self, reason: str, *, permanent: bool = False, hint: str = "", max_attempts: int | None = None
    ) -> None:
        super().__init__(reason)
        self.max_attempts = max_attempts
        self.permanent = permanent
        self.hint = hint


class InvalidUrlError(Exception):
    """A URL that is not valid."""


class HttpClient:
    """Sends requests without decompression, cookies and redirects. To be closed, by `async with`."""

    def __init__(self, network: Network, connect_seconds: float, stall_seconds: float) -> None:
        self._network = network
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=stall_seconds)
        self._head_seconds = connect_seconds + stall_seconds
        self._sessions: dict[Proxy | None, aiohttp.ClientSession] = {}  # by SOCKS proxy
        self._socks_errors: tuple[type[Exception], ...] = ()  # known once aiohttp-socks is imported

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()

    async def get(self, url: URL, headers: Mapping[str, str]) -> ClientResponse:
        """Return the response to a GET. Raises DownloadInterruptedError, InvalidUrlError and ConfigError."""
        proxy = self._network.proxy(str(url))
        by_http = proxy if proxy and proxy.scheme != "socks5" else None
        login = _authorization(by_http)
        session = self._session(None if by_http else proxy)
        try:
            async with asyncio.timeout(self._head_seconds):  # aiohttp waits for a proxy's response to CONNECT for ever
                response = await session.get(
                    url,
                    headers={**headers, **(login if url.scheme == "http" else {})},
                    allow_redirects=False,
                    proxy=by_http.address if by_http else None,
                    proxy_headers=login or None,  # of CONNECT
                )
        except aiohttp.InvalidURL as error:
            raise InvalidUrlError from error
        except (aiohttp.ClientError, OSError) as error:
            raise _interrupted(error, proxy) from error
        except self._socks_errors as error:
            what = "it closed the connection" if isinstance(error, asyncio.IncompleteReadError) else str(error)
            raise DownloadInterruptedError(f"the proxy {proxy.description if proxy else ''}: {what}") from error
        except ValueError as error:  # a token beside a password in the URL
            raise InvalidUrlError from error
        if by_http and response.status == 407:
            response.close()
            raise _refused_by(by_http, response.status)
        return response

    def _session(self, socks: Proxy | None) -> aiohttp.ClientSession:
        if socks not in self._sessions:
            self._sessions[socks] = aiohttp.ClientSession(
                connector=self._connector(socks),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                headers={"User-Agent": "llama-gguf-inference", "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=_READ_BUFFER_BYTES,
                max_line_size=_MAX_HEADER_BYTES,
                max_field_size=_MAX_HEADER_BYTES,
            )
        return self._sessions[socks]

    def _connector(self, socks: Proxy | None) -> aiohttp.TCPConnector:
        trusted = self._network.ssl_context
        if socks is None:
            return aiohttp.TCPConnector(limit=0, ssl=trusted)
        import aiohttp_socks  # noqa: PLC0415 - only where there is such a proxy

        errors = (aiohttp_socks.ProxyError, aiohttp_socks.ProxyConnectionError, aiohttp_socks.ProxyTimeoutError)
        self._socks_errors = (*errors, asyncio.IncompleteReadError)
        user, password = socks.username or None, socks.password or None
        kind = aiohttp_socks.ProxyType.SOCKS5
        return aiohttp_socks.ProxyConnector(
            socks.host, socks.port, kind, user, password, rdns=True, limit=0, ssl=trusted
        )


def _authorization(proxy: Proxy | None) -> dict[str, str]:
    if proxy is None or not proxy.username:
        return {}
    return {"Proxy-Authorization": aiohttp.encode_basic_auth(proxy.username, proxy.password)}


async def body(response: ClientResponse) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of the body as they arrive. Raises DownloadInterruptedError when it is incomplete."""
    try:
        async for chunk, _ in response.content.iter_chunks():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise DownloadInterruptedError(_reason(error)) from error


async def error_message(response: ClientResponse, seconds: float = _MESSAGE_SECONDS) -> str:
    """Return what the server says in an error response, as far as it arrives within `seconds`."""
    return message_of(response.headers, await start_of_body(response, MAX_MESSAGE_BYTES, seconds))


async def start_of_body(response: ClientResponse, size: int, seconds: float = _MESSAGE_SECONDS) -> bytes:
    """Return at most `size` bytes of the body: what arrives within `seconds`."""
    chunks = bytearray()
    with suppress(aiohttp.ClientError, OSError):  # a timeout is an OSError too
        async with asyncio.timeout(seconds):
            async for chunk in response.content.iter_any():
                chunks += chunk
                if len(chunks) >= size:
                    break
    return bytes(chunks[:size])


def _interrupted(error: Exception, proxy: Proxy | None) -> DownloadInterruptedError:
    if proxy and isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by(proxy, error.status)
    if type(error) is aiohttp.ClientOSError and isinstance(error.__cause__, ssl.SSLError):
        error = error.__cause__  # of a connection that aiohttp-socks made
    through = f", through the proxy {proxy.description}" if proxy else ""
    hint, attempts = "", None
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        hint, attempts = OWN_AUTHORITY_HINT, FEW_ATTEMPTS
    elif isinstance(error, aiohttp.ClientConnectorDNSError) and error.os_error.errno in _NO_SUCH_NAME:
        hint, attempts = "check the URL and the DNS of this machine", FEW_ATTEMPTS
    return DownloadInterruptedError(_reason(error) + through, hint=hint, max_attempts=attempts)


def _refused_by(proxy: Proxy, status: int) -> DownloadInterruptedError:
    return DownloadInterruptedError(
        f"the proxy {proxy.description} responded with {status}",
        permanent=status in _PROXY_REFUSALS,
        hint=f"put the right user and password into {proxy.variable}" if status == 407 else "",
    )


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
        case aiohttp.ClientResponseError():
            return "the response is not valid HTTP"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return "the connection was closed before the response was complete"
        case ssl.SSLError():
            return f"TLS connection failed: {_tls_cause(error)}"
        case OSError():
            return _system_reason(error)
    return type(error).__name__


def _tls_reason(error: aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError) -> str:
    return _tls_cause(
        error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    )


def _tls_cause(cause: Exception) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return getattr(cause, "reason", None) or type(cause).__name__


def _system_reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__
