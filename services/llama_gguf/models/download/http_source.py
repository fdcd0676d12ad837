"""HTTP for downloads: requests, redirects, and failures as messages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import ClientResponse
from yarl import URL

from llama_gguf.models.download.http_client import DownloadInterruptedError, HttpClient, InvalidUrlError

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10
_MAY_HAVE_EXPIRED = {400, 401, 403, 404, 410}  # statuses of object stores when a signed URL has expired
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SENDABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class _Target:
    url: URL
    headers: Mapping[str, str] = field(repr=False)


class HttpSource:
    """One file at a URL. The target of its redirects is used for further requests, until it expires."""

    def __init__(self, client: HttpClient, url: str, credentials: Mapping[str, str]) -> None:
        self._client = client
        self._origin = _Target(_parsed(url), credentials)
        self._target: _Target | None = None
        self.published_sha256 = ""  # of the whole file, as the hub says it beside its redirect

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
            linked = response.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"')
            if target is self._origin and _SHA256.fullmatch(linked):
                self.published_sha256 = linked
            if response.status not in _REDIRECTS or not location:
                self._target = target if target is not self._origin else None
                return response
            response.release()
            target = _redirected(target, location)
        raise DownloadInterruptedError(f"more than {_MAX_REDIRECTS} redirects", permanent=True)

    async def _send(self, target: _Target, headers: Mapping[str, str]) -> ClientResponse:
        return await self._client.get(target.url, {**target.headers, **headers})


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
