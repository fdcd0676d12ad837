"""The first key of an appliance that was started from a template, where nobody has a shell.

Owns `auth.bootstrap`: a key given in a variable or a mounted file becomes the record `bootstrap`; or one is made at
the first start. Called by `up` at every start, before the programs; it changes nothing that is right already. Never
logs a key; one that it made is returned, for the caller to print once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llama_gguf.audit import AuditLog
from llama_gguf.errors import KeysError
from llama_gguf.settings.locations import Locations

from .admin import KeyAdmin, actor
from .record import KeyFile
from .secret import check_secret, digest
from .store import KeyStore

if TYPE_CHECKING:
    from llama_gguf.settings.sections.auth import Auth, Bootstrap

KEY_ID = "bootstrap"
_MAX_BYTES = 4096

Outcome = Literal["off", "present", "added", "replaced", "stale", "generated"]
"""`stale`: the key `bootstrap` was rotated by hand, so the one in the variable or file is no longer good."""


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """What came of it. `secret` is set only for a key that was made just now; print it once and forget it."""

    outcome: Outcome
    key_id: str = ""
    source: str = ""  # "environment variable X", "file Y"; never a value
    secret: str = field(default="", repr=False)


def bootstrap(auth: Auth, locations: Locations, env: Mapping[str, str]) -> BootstrapResult:
    """See that the first key exists. Raises KeysError if it is given but unusable, or cannot be stored.

    A variable or file that is named but absent is an error only while the keys file has no key: a deployment may
    take it away once it has served.
    """
    if not auth.enabled or not _wanted(auth.bootstrap):
        return BootstrapResult("off")
    keys = KeyStore(locations.keys_file)
    admin = KeyAdmin(keys, AuditLog(locations.audit_file), actor=actor("bootstrap"))
    present = _present(keys)
    given = _given(auth.bootstrap, env)
    if given is not None:
        source, secret = given
        return _adopt(admin, present, auth.bootstrap, source, secret)
    if present.records:
        return BootstrapResult("present")
    if not auth.bootstrap.generate:
        raise KeysError(
            f"there is no key yet, and {_named(auth.bootstrap)} is not there to give the first one",
            code="bootstrap-missing",
            hint="set it, or let `auth.bootstrap.generate: true` make a key",
        )
    change = admin.generate(KEY_ID, scopes=frozenset(auth.bootstrap.scopes), note="made at the first start")
    return BootstrapResult("generated", KEY_ID, "", change.secret)


def _wanted(settings: Bootstrap) -> bool:
    return bool(settings.env or settings.file or settings.generate)


def _present(keys: KeyStore) -> KeyFile:
    try:
        return keys.read().keys
    except KeysError as error:
        if error.code == "keys-missing":
            return KeyFile()
        raise


def _given(settings: Bootstrap, env: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (source, key) of the first place that has one: the variable, then the file."""
    if settings.env and (value := env.get(settings.env, "").strip()):
        return f"environment variable {settings.env}", value
    if settings.file:
        try:
            with Path(settings.file).open("rb") as file:
                value = file.read(_MAX_BYTES).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeysError(
                f"cannot read auth.bootstrap.file {settings.file}: {error.strerror}", code="keys-io"
            ) from error
        if value:
            return f"file {settings.file}", value
    return None


def _named(settings: Bootstrap) -> str:
    names = [f"environment variable {settings.env}"] if settings.env else []
    return " or ".join(names + ([f"file {settings.file}"] if settings.file else []))


def _adopt(admin: KeyAdmin, present: KeyFile, settings: Bootstrap, source: str, secret: str) -> BootstrapResult:
    """Make the given key the record `bootstrap`, unless it is known or somebody has rotated that record since."""
    try:
        sought = digest(check_secret(secret))
    except KeysError as error:
        raise KeysError(f"{source}: {error.message}", code=error.code, hint=error.hint) from None
    owner = next((record for record in present.records if sought in record.digests()), None)
    if owner is not None:
        return BootstrapResult("present", owner.id, source)
    old = present.find(KEY_ID)
    if old is None:
        admin.generate(KEY_ID, secret=secret, scopes=frozenset(settings.scopes), note=f"from {source}"[:500])
        return BootstrapResult("added", KEY_ID, source)
    if old.rotated is not None:
        # A leaked key that was rotated away must not come back with the next restart.
        return BootstrapResult("stale", KEY_ID, source)
    admin.replace_secret(KEY_ID, secret)
    return BootstrapResult("replaced", KEY_ID, source)
