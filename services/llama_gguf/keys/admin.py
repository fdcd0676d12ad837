"""Changes of keys, as called by the CLI and bootstrap: lock, pure operation, audit line, new file.

Owns the order. The audit line is on disk before the keys file is replaced, so no change is unrecorded; if the write
then fails, `keys.failed` is recorded too. The new file names the line, so that a log which was cut before it shows; a
crash in between leaves the line before named, which is still in the log. Without write access to the audit log, keys
cannot be changed.
"""

from __future__ import annotations

import datetime as dt
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from llama_gguf.audit import AuditHead, AuditLog, Detail
from llama_gguf.errors import KeysError
from llama_gguf.timestamps import utc_text

from . import operations, store
from .operations import Change, Imported, KeyFields, RotationRequest
from .record import KeyFile, KeyRecord
from .secret import new_nonce, new_secret


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def actor(program: str) -> str:
    """Return the actor for the audit log: the program and the user it runs as."""
    uid = os.geteuid()
    try:
        return f"{program}:{pwd.getpwuid(uid).pw_name}"
    except KeyError:  # a container's arbitrary uid has no name
        return f"{program}:uid={uid}"


class KeyAdmin:
    """Changes one keys file and records that. Every method blocks on the disk; KeysError means nothing was changed."""

    def __init__(
        self, keys: store.KeyStore, audit: AuditLog, *, actor: str, clock: Callable[[], dt.datetime] = _now
    ) -> None:
        self._store = keys
        self._audit = audit
        self._actor = actor
        self._clock = clock

    def generate(self, key_id: str, *, secret: str = "", **given: Unpack[KeyFields]) -> Change:
        """Add a key with a new secret, or with the one given."""
        with self._store.locked() as session:
            change = operations.issue(session.keys, key_id, secret or new_secret(), self._clock(), **given)
            self._write(session, change.keys, "keys.generate", key_id, describe(change.record))
            return change

    def update(self, key_id: str, **given: Unpack[KeyFields]) -> Change:
        """Change a key's scopes, limits or other fields."""
        with self._store.locked() as session:
            before = session.keys.find(key_id)
            change = operations.update(session.keys, key_id, self._clock(), **given)
            now, old = describe(change.record), describe(before) if before else {}
            self._write(
                session,
                change.keys,
                "keys.update",
                key_id,
                {name: now.get(name) for name in sorted(now.keys() | old.keys()) if now.get(name) != old.get(name)},
            )
            return change

    def remove(self, key_id: str) -> Change:
        """Remove a key."""
        with self._store.locked() as session:
            change = operations.remove(session.keys, key_id)
            self._write(session, change.keys, "keys.remove", key_id, {"prefix": change.record.prefix})
            return change

    def rotate(
        self, key_id: str, *, grace: dt.timedelta = dt.timedelta(0), request_id: str = "", secret: str = ""
    ) -> Change:
        """Give a key a new secret; see `operations.rotate`. Repeating a `request_id` changes and records nothing."""
        with self._store.locked() as session:
            change = operations.rotate(
                session.keys,
                key_id,
                self._clock(),
                secret=secret or new_secret(),
                nonce=new_nonce(),
                grace=grace,
                request=RotationRequest(request_id, session.pepper()) if request_id else None,
            )
            details: dict[str, Detail] = {"prefix": change.record.prefix, "grace_seconds": int(grace.total_seconds())}
            self._write(session, change.keys, "keys.rotate", key_id, details)
            return change

    def replace_secret(self, key_id: str, secret: str) -> Change:
        """Give a key the secret that its owner chose elsewhere; the old one is invalid at once."""
        with self._store.locked() as session:
            change = operations.replace_secret(session.keys, key_id, secret, self._clock())
            self._write(session, change.keys, "keys.replace", key_id, {"prefix": change.record.prefix})
            return change

    def import_file(self, path: Path) -> Imported:
        """Import the keys of another file, in the old format or the new one.

        `path` can be the keys file itself: one in the old format is then replaced by one that holds digests.
        """
        with self._store.locked(convert=True) as session:
            records = store.load(path).keys.records
            converted = replace(session.keys, plaintext=False)
            if session.keys.plaintext and path.samefile(self._store.path):
                result = Imported(converted, tuple(record.id for record in records), ())
            else:
                result = operations.import_records(converted, records)
            if result.keys != session.keys:
                details: dict[str, Detail] = {"added": list(result.added), "skipped": list(result.skipped)}
                self._write(session, result.keys, "keys.import", str(path), details)
            return result

    def _write(
        self, session: store.Session, keys: KeyFile, action: str, target: str, details: Mapping[str, Detail]
    ) -> None:
        if keys is session.keys:
            return
        known = AuditHead.read(session.keys.audit_head) if session.keys.audit_head else None
        entry = self._audit.append(actor=self._actor, action=action, target=target, details=details, known=known)
        try:
            session.write(replace(keys, audit_head=str(entry.head())))
        except KeysError as error:
            failed: dict[str, Detail] = {"action": action, "reason": error.code}
            self._audit.append(actor=self._actor, action="keys.failed", target=target, details=failed)
            raise


def describe(record: KeyRecord) -> dict[str, Detail]:
    """Return a key's fields for the audit log and for --json: no secret, no digest, nothing that is not set."""
    described: dict[str, Detail] = {
        "prefix": record.prefix,
        "scopes": sorted(record.scopes),
        "models": list(record.models) if record.models else None,
        "requests_per_minute": record.requests_per_minute,
        "tokens_per_minute": record.tokens_per_minute,
        "concurrency": record.concurrency,
        "monthly_tokens": record.monthly_tokens,
        "max_output_tokens": record.max_output_tokens,
        "max_reasoning_tokens": record.max_reasoning_tokens,
        "strip": list(record.strip) or None,
        "defaults": [f"{name}: {value}" for name, value in (record.defaults or {}).items()] or None,
        "priority": record.priority,
        "expires": utc_text(record.expires) if record.expires else None,
        "note": record.note,
    }
    return {name: value for name, value in described.items() if value not in (None, "")}
