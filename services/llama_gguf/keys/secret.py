"""The secret of a key: generated, checked, hashed, shortened, and derived again for the same rotation request.

Owns everything that touches a plaintext key. Nothing here stores or logs one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

from llama_gguf.errors import KeysError

MIN_LENGTH = 16
MAX_LENGTH = 128
_SECRET = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_VISIBLE = 8


def new_secret() -> str:
    """Generate a key of 256 random bits: `sk-` and 43 URL-safe characters."""
    return "sk-" + secrets.token_urlsafe(32)


def check_secret(text: str) -> str:
    """Return `text` if it can be a key. Raises KeysError, without quoting it, if not."""
    if not _SECRET.fullmatch(text):
        raise KeysError(
            f"a key must be {MIN_LENGTH} to {MAX_LENGTH} characters of A-Z a-z 0-9 _ - (this one has {len(text)})",
            code="key-text",
            hint="`llama-gguf keys generate` generates one",
        )
    return text


def digest(text: str) -> str:
    """Return what the keys file stores of a key: its SHA-256 in hex.

    A fast hash is right for 256 random bits: no dictionary attack is possible. (Keys chosen by a person and imported
    from an old file are weaker; `keys import` reports the short ones.)
    """
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def visible_prefix(text: str) -> str:
    """Return the first characters of a key: enough to find it in a list, at most a quarter of a short one."""
    return text[: min(_VISIBLE, len(text) // 4)]


def is_short(prefix: str) -> bool:
    """Return whether a visible prefix is of a key with less than 32 characters, which a person can have chosen."""
    return len(prefix) < _VISIBLE


def new_nonce() -> str:
    """Generate the nonce of one rotation, 256 bits in hex."""
    return secrets.token_hex(32)


def _hmac(pepper: bytes, *parts: str) -> bytes:
    # Length prefixes: no two lists of parts give the same message.
    message = b"".join(len(part).to_bytes(4, "big") + part.encode() for part in parts)
    return hmac.digest(pepper, message, "sha256")


def request_mark(pepper: bytes, key_id: str, request_id: str) -> str:
    """Return the HMAC by which a record identifies the rotation request `request_id`."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise KeysError(
            "a request id must be 1 to 128 printable characters without spaces", code="request-id", hint="use a UUID"
        )
    return _hmac(pepper, "request", key_id, request_id).hex()


def derive_secret(pepper: bytes, key_id: str, request_id: str, nonce: str) -> str:
    """Derive the key of a rotation with a request id: the same one at every repetition.

    The plaintext cannot be recovered from the digest, so a repeated request needs a key that is not random.
    It is the HMAC-SHA256, under a pepper of 256 random bits, of key id, request id and a nonce:

    - as strong as a random key to anyone without the pepper, which is stored beside the keys file, 0600, and is never
      mounted, printed or backed up with it by us;
    - a thief of both files still needs the request id, of which the record has only an HMAC. A UUID cannot be
      guessed; with a guessable request id the secrecy of this one key rests on the pepper file alone;
    - the nonce is new in every actual rotation, so no later request, and no new key with an old id, can derive an old
      secret again.
    """
    raw = _hmac(pepper, "secret", key_id, request_id, nonce)
    return "sk-" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
