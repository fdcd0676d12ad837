"""The gateway's lookup of keys: immutable, built once per change of the keys file.

Owns whose key this is, and whether it is valid now. Knows no file and no HTTP. A new keyring replaces the old one as a
whole; requests in flight retain the record they were matched with.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Literal

from llama_gguf.keys.record import KeyRecord
from llama_gguf.keys.secret import MAX_LENGTH, MIN_LENGTH

_NO_DIGEST = bytes(32)
_NOBODY = (_NO_DIGEST, None, -inf)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a presented key is: the record, which of its secrets, and until when it is valid (epoch seconds)."""

    state: Literal["valid", "expired", "unknown"]
    record: KeyRecord | None = None
    previous: bool = False  # a secret that a rotation replaced
    valid_until: float = inf


class Keyring:
    """Finds the record of a presented key. Immutable; an empty keyring matches nothing.

    Timing does not reveal keys: the key is hashed first, and hit and miss then do the same work, one lookup of the
    digest in a dict and one constant-time comparison (a miss compares with a digest that no key has). The dict's cost
    does not grow with the number of keys but for the CPU's caches, and it compares a SHA-256, which a client cannot
    choose to be close to a stored one.
    """

    __slots__ = ("_entries", "_records")

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._entries: dict[bytes, tuple[bytes, KeyRecord, float]] = {}
        for record in records:
            if self._records.setdefault(record.id, record) is not record:
                raise ValueError(f"two keys have the id {record.id}")
            expires = record.expires.timestamp() if record.expires else inf
            self._add(record.digest, record, expires)
            for secret in record.previous:
                self._add(secret.digest, record, min(expires, secret.valid_until.timestamp()))

    def _add(self, digest: str, record: KeyRecord, until: float) -> None:
        raw = bytes.fromhex(digest)
        if self._entries.setdefault(raw, (raw, record, until))[1] is not record:
            raise ValueError(f"the keys {record.id} and {self._entries[raw][1].id} share a secret")

    def match(self, presented: bytes | str, now: float) -> KeyRecord | None:
        """Return the record of a key that is valid at `now` (epoch seconds), or None. Never raises."""
        # The accepted lengths are public, so rejecting others early reveals nothing, and a long header costs no hash.
        if not MIN_LENGTH <= len(presented) <= MAX_LENGTH:
            return None
        if isinstance(presented, str):
            presented = presented.encode("utf-8", "surrogatepass")  # headers can contain anything; this never fails
        digest = hashlib.sha256(presented).digest()
        stored, record, until = self._entries.get(digest, _NOBODY)
        if hmac.compare_digest(stored, digest) and now < until:
            return record
        return None

    def explain(self, presented: str, now: float) -> Verdict:
        """Return what a key is, for the CLI. Not for requests: it distinguishes expired from unknown."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        entry = self._entries.get(digest)
        if entry is None:
            return Verdict("unknown")
        _, record, until = entry
        return Verdict("valid" if now < until else "expired", record, digest.hex() != record.digest, until)

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None."""
        return self._records.get(key_id)

    def __len__(self) -> int:
        return len(self._records)
