"""What the fetchers work with, handed down as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_gguf.models.checksum import VerifiedFiles
from llama_gguf.models.model_files import Reporter


@dataclass(frozen=True, slots=True)
class Means:
    """The variables (tokens among them), the memory of checksums, whom to tell, and connections for each file."""

    env: Mapping[str, str] = field(repr=False)
    verified: VerifiedFiles
    reporter: Reporter
    connections: int = 1
