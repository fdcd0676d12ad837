"""What to download, and how patiently: the values that the parts of a download share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_gguf.models.model_files import Reporter


@dataclass(frozen=True, slots=True)
class Remote:
    """A file at an address, and what is known of it beforehand."""

    url: str
    label: str  # the address as messages may show it
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """How long to wait for what, in seconds, and how much to ask for at a time; tests are less patient."""

    connect: float = 15.0
    stall: float = 60.0  # without a byte
    pause: float = 1.0  # before a broken connection is taken up again
    busy: float = 5.0  # before a server that had no room is asked again, unless it says how long
    longest_pause: float = 60.0
    note: float = 1.0  # between two notes of how far it is
    segment_bytes: int = 16 * 1024 * 1024  # the least that is worth a request; fast connections ask for more


@dataclass(frozen=True, slots=True)
class Job:
    """What to fetch, and how."""

    remote: Remote
    reporter: Reporter
    connections: int
    tuning: Tuning
