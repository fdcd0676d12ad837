"""One API key as the keys file holds it: a digest and what the key may do, never the key itself.

Owns the record type; the rules that each field obeys are in `rules`, under the names that the annotations give here.
The operations on records are pure and know no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:  # pydantic takes 0.1 s; the gateway imports it only when it reads its keys
    from pydantic import ConfigDict

    from llama_gguf.keys.validation import Digest, KeyId, Limit, Models, Note, Prefix, Previous, Rotations, Scopes, Time

Priority = Literal["high", "normal", "low"]

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"

STRICT: ConfigDict = {  # for reading; errors must not quote values, which may be secrets in the wrong place
    "extra": "forbid",
    "strict": True,
    "revalidate_instances": "always",
    "hide_input_in_errors": True,
}


@dataclass(frozen=True, slots=True)
class PreviousSecret:
    """The digest a rotation replaced, still accepted until `valid_until` (UTC)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    digest: Digest
    valid_until: Time


@dataclass(frozen=True, slots=True)
class RotationMark:
    """Trace of a rotation made with a request id, by which a repetition is recognised (see `keys.secret`)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    request: Digest  # HMAC of the request id, not the id itself
    nonce: Digest


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key: who it is (`id`), how to recognise it (`digest`, SHA-256 in hex) and what it may do.

    Limits that are None fall back to the `limits` section; `models` None allows every model. All times are UTC.
    The annotations are applied by `rules.check`, not by the constructor.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    id: KeyId
    digest: Digest
    prefix: Prefix  # for finding the key in a list
    created: Time
    scopes: Scopes = frozenset({"inference"})
    models: Models | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrency: Limit | None = None
    monthly_tokens: Limit | None = None
    priority: Priority = "normal"
    expires: Time | None = None
    rotated: Time | None = None
    note: Note = ""
    previous: Previous = ()
    rotations: Rotations = ()  # newest first

    def digests(self) -> Iterator[str]:
        """Yield the digest of every secret of this key, the current one first."""
        yield self.digest
        for secret in self.previous:
            yield secret.digest


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The content of a keys file. `plaintext` says that it is written in the old format, which holds the keys."""

    records: tuple[KeyRecord, ...] = ()
    plaintext: bool = False

    def find(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None."""
        return next((record for record in self.records if record.id == key_id), None)
