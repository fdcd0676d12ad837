"""The first key of an appliance that was started from a template, without a shell.

Owns `auth.bootstrap`: a key in a variable or a mounted file becomes the record `bootstrap`; or one is generated at the
first start. Called by `up` at every start, before the programs; idempotent. Never logs a key; a generated one is
returned, for the caller to print once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llama_gguf.audit import AuditLog
from llama_gguf.errors import KeysError
from llama_gguf.settings.environment_value import clean, secret
from llama_gguf.settings.locations import Locations
from llama_gguf.settings.redaction import shown_secret_file, shown_variable
from llama_gguf.settings.sections.sources import key_sources_of

from .admin import KeyAdmin, actor
from .record import KeyFile
from .secret import check_secret, digest
from .store import KeyStore, load_if_exists

if TYPE_CHECKING:
    from llama_gguf.settings.sections.auth import Auth, Bootstrap

KEY_ID = "bootstrap"
_MAX_BYTES = 4096

Outcome = Literal["off", "present", "added", "replaced", "stale", "generated"]
"""`stale`: the key `bootstrap` was rotated by hand, so the one in the variable or file is no longer valid."""


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """The result. `secret` is set only for a key that was generated just now; print it once and discard it."""

    outcome: Outcome
    key_id: str = ""
    source: str = ""  # "environment variable X", "file Y"; never a value
    secret: str = field(default="", repr=False)


def bootstrap(auth: Auth, locations: Locations, env: Mapping[str, str]) -> BootstrapResult:
    """Ensure that the first key exists. Raises KeysError if it is given but invalid, or cannot be stored.

    A configured variable or file that is missing is an error only while the keys file has no key: a deployment can
    remove it afterwards.
    """
    if not auth.enabled or not key_sources_of(auth.bootstrap):
        return BootstrapResult("off")
    admin = KeyAdmin(KeyStore(locations.keys_file), AuditLog(locations.audit_file), actor=actor("bootstrap"))
    present = load_if_exists(locations.keys_file).keys
    given = _given(auth.bootstrap, env)
    if given is not None:
        source, key = given
        return _adopt(admin, present, auth.bootstrap, source, key)
    if present.records:
        return BootstrapResult("present")
    if not auth.bootstrap.generate:
        raise KeysError(
            f"there is no key yet, and the source of the first one is missing: {_named(auth.bootstrap)}",
            code="bootstrap-missing",
            hint="set it, or set `auth.bootstrap.generate: true` to generate a key",
        )
    change = admin.generate(KEY_ID, scopes=frozenset(auth.bootstrap.scopes), note="generated at the first start")
    return BootstrapResult("generated", KEY_ID, "", change.secret)


def _given(settings: Bootstrap, env: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (source, key) of the first source that has one: the variable, then the file."""
    if settings.env and (value := secret(env, settings.env)):
        return f"environment variable {shown_variable(settings.env)}", value
    if settings.file:
        try:
            with Path(settings.file).open("rb") as file:
                value = clean(file.read(_MAX_BYTES).decode("utf-8-sig", "replace")).text
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeysError(
                f"cannot read auth.bootstrap.file {shown_secret_file(settings.file)}: {error.strerror}", code="keys-io"
            ) from error
        if value:
            return f"file {shown_secret_file(settings.file)}", value
    return None


def _named(settings: Bootstrap) -> str:
    names = [f"environment variable {shown_variable(settings.env)}"] if settings.env else []
    return " or ".join(names + ([f"file {shown_secret_file(settings.file)}"] if settings.file else []))


def _adopt(admin: KeyAdmin, present: KeyFile, settings: Bootstrap, source: str, key: str) -> BootstrapResult:
    """Make the given key the record `bootstrap`, unless it exists or that record has been rotated since."""
    try:
        wanted = digest(check_secret(key))
    except KeysError as error:
        raise KeysError(f"{source}: {error.message}", code=error.code, hint=error.hint) from None
    owner = next((record for record in present.records if wanted in record.digests()), None)
    if owner is not None:
        return BootstrapResult("present", owner.id, source)
    old = present.find(KEY_ID)
    if old is None:
        admin.generate(KEY_ID, secret=key, scopes=frozenset(settings.scopes), note=f"from {source}"[:500])
        return BootstrapResult("added", KEY_ID, source)
    if old.rotated is not None:
        # A leaked key that was rotated away must not come back with the next restart.
        return BootstrapResult("stale", KEY_ID, source)
    admin.replace_secret(KEY_ID, key)
    return BootstrapResult("replaced", KEY_ID, source)
