"""Every code a KeysError, or a warning about the keys file, may have, and what it means.

A test holds this against the code that raises them, and the reference lists it.
"""

from __future__ import annotations

from collections.abc import Mapping

KEYS_CODES: Mapping[str, str] = {
    # the keys file
    "keys-missing": "There is no keys file.",
    "keys-io": "The operating system refuses to read, lock or replace a file.",
    "keys-syntax": "The keys file breaks its grammar; each line that does is named.",
    "keys-blank": "The keys file is blank while keys are in use, so the gateway keeps them.",
    "keys-writable": "Anybody on the machine may change the keys file.",
    "keys-readable": "Other users may read the keys file (warning).",
    "keys-plaintext": "The keys file is in the old format, which holds the keys themselves: it is read, not changed.",
    "keys-busy": "Another process has held the lock for too long; try again (exit code 75).",
    "keys-pepper": "The file beside the keys file that repeated rotations need is damaged or open to others.",
    # one key
    "key-exists": "The id or the secret belongs to a key already.",
    "key-unknown": "There is no key with this id.",
    "key-expired": "The key has expired, and so would its new secret.",
    "key-field": "A field of a key breaks its rule.",
    "key-text": "A text cannot be a key: length or characters.",
    "key-time": "A text is neither a span of time nor a moment.",
    "request-id": "A rotation's request id is malformed, or belongs to a rotation that another has followed.",
    "bootstrap-missing": "There is no key yet, and what should give the first one is not there.",
    # the audit log
    "audit-missing": "There is no audit log.",
    "audit-damaged": "The last line of the audit log, or its head file, cannot be read.",
    "audit-truncated": "The audit log has lost its end.",
    "audit-tampered": "`audit verify` found that the log is not as it was written.",
}
