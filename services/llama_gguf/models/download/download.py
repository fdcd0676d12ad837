"""Downloads one large file over HTTP: over several connections, resumable, and visible only when complete.

Blocks its caller; the work is done by `transfer`, which is imported only when it is needed: an engine whose model is on
disk does not wait for an HTTP client. Knows nothing of hubs or settings. Messages never contain a query string or a
token.
"""

from __future__ import annotations

from pathlib import Path

from llama_gguf.models.download.errors import disk_error
from llama_gguf.models.download.spec import DownloadJob, Remote, Tuning
from llama_gguf.models.model_files import Reporter
from llama_gguf.models.network import Network
from llama_gguf.states import Phase


def prepare_directory(directory: Path) -> None:
    """Create `directory`. Raises ModelError when that fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(directory, error) from error


def download(
    remote: Remote,
    destination: Path,
    reporter: Reporter,
    connections: int = 1,
    tuning: Tuning | None = None,
    *,
    network: Network | None = None,
) -> None:
    """Download `remote` to `destination` and verify its SHA-256, if one is given.

    Without `network` no proxy is used.

    Interrupted connections are resumed as long as there is progress. Raises ModelError; the partial file is retained
    for the next call, unless it is corrupt. Must not be called where an event loop runs.
    """
    from llama_gguf.models.download.transfer import run  # noqa: PLC0415 - pulls in an HTTP client

    reporter.phase(Phase.DOWNLOADING, remote.label)
    try:
        run(DownloadJob(remote, reporter, network or Network({}), connections, tuning or Tuning()), destination)
    except OSError as error:
        raise disk_error(destination, error) from error
