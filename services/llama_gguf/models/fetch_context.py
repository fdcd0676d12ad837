"""What all fetchers need, handed down as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_gguf.models.checksum import VerifiedFiles
from llama_gguf.models.model_files import Reporter


@dataclass(frozen=True, slots=True)
class FetchContext:
    """The environment (with tokens), the verified checksums, where to report, and the connections per file."""

    env: Mapping[str, str] = field(repr=False)
    verified: VerifiedFiles
    reporter: Reporter
    connections: int = 1
