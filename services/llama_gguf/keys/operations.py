"""The operations on a set of keys: pure functions from a KeyFile to a new one.

Time and randomness are arguments, so the same call gives the same result; `admin` owns files, locks and the audit log.
A function that changes nothing returns the KeyFile it was given.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from llama_gguf.errors import KeysError
from llama_gguf.keys.validation import MAX_PREVIOUS, MAX_ROTATIONS, check
from llama_gguf.settings.sections.scope import Scope

from .record import KeyFile, KeyRecord, PreviousSecret, Priority, RotationMark
from .secret import check_secret, derive_secret, digest, request_mark, visible_prefix


class KeyFields(TypedDict, total=False):
    """What `issue` and `update` can set; the fields of KeyRecord of the same names."""

    scopes: frozenset[Scope]
    models: tuple[str, ...] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    monthly_tokens: int | None
    max_output_tokens: int | None
    max_reasoning_tokens: int | None
    strip: tuple[str, ...]
    defaults: dict[str, Any] | None
    priority: Priority
    expires: dt.datetime | None
    note: str


@dataclass(frozen=True, slots=True)
class Change:
    """The new keys and the changed record. `secret` is the plaintext, to be shown once."""

    keys: KeyFile
    record: KeyRecord
    secret: str = ""

    def __repr__(self) -> str:
        return f"Change(record={self.record.id!r})"  # a traceback or a log line must not show the secret


@dataclass(frozen=True, slots=True)
class RotationRequest:
    """An idempotent rotation: the caller's id for it, and the pepper of this keys file."""

    id: str
    pepper: bytes


@dataclass(frozen=True, slots=True)
class Imported:
    """The new keys and the ids that were added, or skipped because the same key exists."""

    keys: KeyFile
    added: tuple[str, ...]
    skipped: tuple[str, ...]


def issue(keys: KeyFile, key_id: str, secret: str, now: dt.datetime, **given: Unpack[KeyFields]) -> Change:
    """Add a key. Raises KeysError if the id or the secret is taken or a field is wrong."""
    if keys.find(key_id):
        raise KeysError(
            f"a key with the id {key_id} exists already",
            code="key-exists",
            hint=f"`llama-gguf keys rotate {key_id}` gives it a new secret; or remove it first",
        )
    now = now.replace(microsecond=0)
    record = KeyRecord(
        id=key_id, digest=digest(check_secret(secret)), prefix=visible_prefix(secret), created=now, **given
    )
    record = check(record)
    _reject_past(record.expires, now)
    _reject_duplicate(keys, record.digest)
    return Change(replace(keys, records=(*keys.records, record)), record, secret)


def update(keys: KeyFile, key_id: str, now: dt.datetime, **given: Unpack[KeyFields]) -> Change:
    """Change a key's fields; its secret remains."""
    old = find_key(keys, key_id)
    record = check(replace(old, **given))
    if record.expires != old.expires:
        _reject_past(record.expires, now)
    return Change(_swap(keys, old, record), record)


def remove(keys: KeyFile, key_id: str) -> Change:
    """Remove a key: its secret and earlier ones are invalid at once."""
    record = find_key(keys, key_id)
    return Change(replace(keys, records=tuple(other for other in keys.records if other is not record)), record)


def rotate(
    keys: KeyFile,
    key_id: str,
    now: dt.datetime,
    *,
    secret: str,
    nonce: str,
    grace: dt.timedelta = dt.timedelta(0),
    request: RotationRequest | None = None,
) -> Change:
    """Give a key a new secret; its other fields remain.

    The old secret is valid until `now + grace`, and no secret from earlier rotations longer than that, so that a grace
    of 0 invalidates all of them. `secret` is used as it is without a `request`; with one, the new secret is derived
    from it and `nonce` (see `secret.derive_secret`), and repeating the last request returns the same change. A request
    older than the last is rejected: its secret is no longer the current one.
    """
    old = find_key(keys, key_id)
    mark = request_mark(request.pepper, key_id, request.id) if request else ""
    if request and mark in [rotation.request for rotation in old.rotations]:
        return _repeat(keys, old, request, mark)
    if old.expires and old.expires <= now:
        raise KeysError(
            f"the key {key_id} has expired, and so would its new secret",
            code="key-expired",
            hint=f"`llama-gguf keys update {key_id} --expires 30d` first",
        )
    if grace < dt.timedelta(0):
        raise KeysError("the grace must not be negative", code="key-field")
    now = now.replace(microsecond=0)
    if request:
        secret = derive_secret(request.pepper, key_id, request.id, nonce)
    new = digest(check_secret(secret))
    _reject_duplicate(keys, new)
    marks = (RotationMark(mark, nonce), *old.rotations)[:MAX_ROTATIONS] if request else old.rotations
    record = replace(
        old,
        digest=new,
        prefix=visible_prefix(secret),
        rotated=now,
        previous=_still_valid(old, now, now + grace),
        rotations=marks,
    )
    record = check(record)
    return Change(_swap(keys, old, record), record, secret)


def replace_secret(keys: KeyFile, key_id: str, secret: str, now: dt.datetime) -> Change:
    """Replace all secrets of a key by one, as if it had been issued with it now. This is not a rotation."""
    old = find_key(keys, key_id)
    new = digest(check_secret(secret))
    _reject_duplicate(keys, new)
    created = now.replace(microsecond=0)
    record = check(
        replace(
            old, digest=new, prefix=visible_prefix(secret), created=created, rotated=None, previous=(), rotations=()
        )
    )
    return Change(_swap(keys, old, record), record, secret)


def import_records(keys: KeyFile, others: Sequence[KeyRecord]) -> Imported:
    """Add `others`. Those that exist with the same secret are skipped; another key with the same id is an error."""
    added: list[KeyRecord] = []
    skipped: list[str] = []
    taken = {secret: record.id for record in keys.records for secret in record.digests()}
    for record in others:
        same = keys.find(record.id)
        if same and record.digest in same.digests():
            skipped.append(record.id)
        elif same:
            raise KeysError(
                f"another key with the id {record.id} exists already",
                code="key-exists",
                hint="remove one of the two, or change its id in the file to import",
            )
        elif owner := next((taken[secret] for secret in record.digests() if secret in taken), None):
            raise KeysError(
                f"the key {record.id} has the same secret as the key {owner}",
                code="key-exists",
                hint="remove one of the two from the file to import",
            )
        else:
            added.append(record)
    return Imported(
        KeyFile((*keys.records, *added)) if added else keys, tuple(record.id for record in added), tuple(skipped)
    )


def find_key(keys: KeyFile, key_id: str) -> KeyRecord:
    """Return the record with this id. Raises KeysError if there is none."""
    record = keys.find(key_id)
    if record is None:
        raise KeysError(
            f"there is no key with the id {key_id}", code="key-unknown", hint="`llama-gguf keys list` shows the ids"
        )
    return record


def _swap(keys: KeyFile, old: KeyRecord, new: KeyRecord) -> KeyFile:
    if new == old:
        return keys
    return replace(keys, records=tuple(new if record is old else record for record in keys.records))


def _repeat(keys: KeyFile, record: KeyRecord, request: RotationRequest, mark: str) -> Change:
    last = record.rotations[0]
    secret = derive_secret(request.pepper, record.id, request.id, last.nonce)
    if last.request != mark or digest(secret) != record.digest:
        raise KeysError(
            f"the request id belongs to an earlier rotation of the key {record.id}, not to the last one",
            code="request-id",
            hint="use a new request id to rotate again",
        )
    return Change(keys, record, secret)


def _still_valid(old: KeyRecord, now: dt.datetime, end: dt.datetime) -> tuple[PreviousSecret, ...]:
    """Return the secrets that remain valid after a rotation at `now`, newest first, none beyond `end`."""
    secrets = (PreviousSecret(old.digest, end), *old.previous)
    limited = [replace(secret, valid_until=min(secret.valid_until, end)) for secret in secrets]
    return tuple(secret for secret in limited if secret.valid_until > now)[:MAX_PREVIOUS]


def _reject_past(expires: dt.datetime | None, now: dt.datetime) -> None:
    if expires and expires <= now:
        raise KeysError("the expiry is in the past", code="key-field", hint="give a time in the future, or `never`")


def _reject_duplicate(keys: KeyFile, secret: str) -> None:
    for record in keys.records:
        if secret in record.digests():
            raise KeysError(
                f"the key {record.id} has this secret already", code="key-exists", hint="every key needs its own secret"
            )
