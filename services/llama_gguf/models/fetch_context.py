"""What all fetchers need, handed down as one value."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from llama_gguf.errors import ConfigError
from llama_gguf.models.checksum import VerifiedFiles
from llama_gguf.models.download.lock import hold
from llama_gguf.models.hub.file import HubFile, HubMetadata
from llama_gguf.models.model_files import Reporter
from llama_gguf.models.network import Network
from llama_gguf.models.source import Wanted
from llama_gguf.models.token import Token
from llama_gguf.settings.redaction import shown_variable
from llama_gguf.states import Phase


@dataclass(frozen=True, slots=True)
class FetchContext:
    """The environment, the network with tokens, the verified checksums, where to report, and connections per file."""

    env: Mapping[str, str] = field(repr=False)
    network: Network
    verified: VerifiedFiles
    reporter: Reporter
    connections: int = 1
    hub_metadata: dict[HubFile, HubMetadata] = field(default_factory=dict)  # as of this attempt

    def token(self, wanted: Wanted) -> Token | None:
        """Return the token of `wanted` itself, None if it names none. Raises ConfigError if its variable is not set."""
        if wanted.token_env is None:
            return None
        token = self.network.token(wanted.token_env)
        if not token:
            raise ConfigError(
                f"{wanted.setting}.token_env: the variable {shown_variable(wanted.token_env)} is not set",
                hint="set the variable to the token, or remove the setting",
            )
        return Token(token, shown_variable(wanted.token_env))

    def lock(self, file: Path, name: str) -> AbstractContextManager[None]:
        """Hold the lock of downloading `file`, also across machines; a wait is reported with `name`."""
        message = f"waiting for another worker that downloads {name}"
        on_wait = partial(self.reporter.phase, Phase.DOWNLOADING, message)
        return hold(file.with_name(file.name + ".lock"), on_wait=on_wait)
