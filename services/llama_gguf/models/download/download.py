"""Fetches one big file over HTTP: over several connections, resumed after any end, complete or not there at all.

Blocks its caller; the work is done by `transfer`, which is imported only when there is something to fetch: an engine
whose model is here does not wait for an HTTP client. Knows nothing of hubs or settings. Messages never hold a query
string or a token.
"""

from __future__ import annotations

from pathlib import Path

from llama_gguf.models.download.errors import disk_error
from llama_gguf.models.download.spec import Job, Remote, Tuning
from llama_gguf.models.model_files import Reporter


def prepare_directory(directory: Path) -> None:
    """Make `directory`. Raises ModelError when that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(directory, error) from error


def download(
    remote: Remote, destination: Path, reporter: Reporter, connections: int = 1, tuning: Tuning | None = None
) -> None:
    """Fetch `remote` to `destination`; its SHA-256, where one is given, has been compared then.

    Connections that break are taken up again for as long as new bytes come. Raises ModelError; what was fetched stays
    for the next call, unless it turned out wrong. Must not be called where an event loop runs.
    """
    from llama_gguf.models.download.transfer import run  # noqa: PLC0415 - pulls in an HTTP client

    reporter.phase("downloading", remote.label)
    try:
        run(Job(remote, reporter, connections, tuning or Tuning()), destination)
    except OSError as error:
        raise disk_error(destination, error) from error
