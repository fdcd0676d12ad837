"""What a server says about a file before it is downloaded: its size, or why there will be no download.

Requests the first bytes only, with GET: signed URLs are refused for HEAD.
"""

from __future__ import annotations

import asyncio

import uvloop

from llama_gguf.models.download import errors
from llama_gguf.models.download.http_client import (
    DownloadInterruptedError,
    HttpClient,
    InvalidUrlError,
    error_message,
    start_of_body,
)
from llama_gguf.models.download.http_source import HttpSource
from llama_gguf.models.download.range_response import ErrorResponse, FullContent, PartialContent, read_response
from llama_gguf.models.download.spec import Remote, Tuning
from llama_gguf.models.network import Network
from llama_gguf.settings.gguf_file import MAGIC


def remote_size(remote: Remote, network: Network, tuning: Tuning | None = None) -> int | None:
    """Return the size of `remote`, None if the server does not say it.

    Raises the ModelError that its download would raise: refused, unreachable, no GGUF file, another SHA-256. Must not
    be called where an event loop runs.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_size(remote, network, tuning or Tuning()))


async def _size(remote: Remote, network: Network, tuning: Tuning) -> int | None:
    try:
        async with HttpClient(network, tuning.connect_timeout, tuning.read_timeout) as client:
            source = HttpSource(client, remote.url, remote.headers)
            async with source.get({"Range": f"bytes=0-{len(MAGIC) - 1}"}) as response:
                errors.check_published(remote, source.published_sha256)
                found = read_response(response.status, response.headers)
                if isinstance(found, ErrorResponse):
                    message = await error_message(response, tuning.message_timeout)
                    raise errors.refused(remote, found.status, message, found.retry_after)
                if not isinstance(found, PartialContent | FullContent):
                    return None  # no ranges, or an empty file: the download itself finds out
                if not (await start_of_body(response, len(MAGIC), tuning.read_timeout)).startswith(MAGIC):
                    raise errors.not_gguf(remote.label, response.headers.get("Content-Type", ""))
                return found.total
    except InvalidUrlError as error:
        raise errors.invalid_url(remote.label) from error
    except DownloadInterruptedError as error:
        raise errors.interrupted(remote, error) from error
