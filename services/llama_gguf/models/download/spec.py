"""What to download, with which timeouts: the values that the modules of a download share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_gguf.models.model_files import Reporter
from llama_gguf.models.network import Network


@dataclass(frozen=True, slots=True)
class Remote:
    """A file at a URL, and what is known about it in advance."""

    url: str
    label: str  # the source as shown in messages: without secrets
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    size: int | None = None
    sha256: str | None = None
    token_source: str = ""  # the variable or file of the token in `headers`, for messages
    setting: str = ""  # dotted path of the artifact, for messages about its settings


@dataclass(frozen=True, slots=True)
class Tuning:
    """Timeouts and delays in seconds, and the size of a request; tests use shorter ones."""

    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    message_timeout: float = 5.0  # for what a server says about a refusal
    retry_delay: float = 1.0  # before an interrupted connection is resumed
    busy_delay: float = 5.0  # before the next request to an overloaded server, unless it sends Retry-After
    max_delay: float = 60.0
    save_interval: float = 1.0  # between two saves of the progress
    segment_bytes: int = 16 * 1024 * 1024  # minimum of a request; fast connections request more


@dataclass(frozen=True, slots=True)
class DownloadJob:
    """What to download, and how."""

    remote: Remote
    reporter: Reporter
    network: Network
    connections: int
    tuning: Tuning
