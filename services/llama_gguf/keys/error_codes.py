"""Every code of a KeysError, or of a warning about the keys file, and what it means."""

from __future__ import annotations

from collections.abc import Mapping

KEYS_CODES: Mapping[str, str] = {
    # the keys file
    "keys-missing": "There is no keys file.",
    "keys-io": "A file cannot be read, locked or replaced.",
    "keys-syntax": "The keys file is not in its format; each invalid line is reported.",
    "keys-blank": "The keys file is blank while keys are in use, so the gateway retains them.",
    "keys-writable": "Every user of the machine can change the keys file.",
    "keys-readable": "Other users can access the keys file (warning).",
    "keys-plaintext": "The keys file is in the old format, with keys in plaintext: it is read, not changed.",
    "keys-busy": "Another process has held the lock for too long; try again (exit code 75).",
    "keys-pepper": "The file beside the keys file that repeated rotations need is corrupt or readable by others.",
    # one key
    "key-exists": "The id or the secret belongs to a key already.",
    "key-unknown": "There is no key with this id.",
    "key-expired": "The key has expired, and so would its new secret.",
    "key-field": "A field of a key is invalid.",
    "key-text": "A text cannot be a key: wrong length or characters.",
    "key-time": "A text is neither a duration nor a time.",
    "request-id": "A rotation's request id is malformed, or belongs to a rotation before the last one.",
    "bootstrap-missing": "There is no key yet, and the source of the first one does not exist.",
    # the audit log
    "audit-missing": "There is no audit log.",
    "audit-damaged": "The last line of the audit log, or its head file, cannot be read.",
    "audit-truncated": "The end of the audit log is missing.",
    "audit-tampered": "`audit verify` found that the log was changed after it was written.",
}
