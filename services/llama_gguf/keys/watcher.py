"""The keyring that the gateway uses, updated when the keys file changes.

Owns when the file is read again. It polls the file's identity, because that works where notifications do not: bind
mounts, network volumes and Kubernetes' symlink swaps. While the file is invalid, blank or missing, the keyring is
retained.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from llama_gguf.errors import KeysError
from llama_gguf.keys import store
from llama_gguf.keys.keyring import Keyring
from llama_gguf.logs import fields

_log = logging.getLogger(__name__)

_SETTLED_SECONDS = 1.0
"""A file is read again until its identity has been the same this long before the read: a file system's timestamps can
be too coarse to show a second write soon after the first."""

Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class KeyState:
    """The watcher's state. `error` is set while the file on disk is not the one in use."""

    ring: Keyring = field(default_factory=Keyring)
    error: KeysError | None = None


def identify(path: Path) -> Identity | None:
    """Return what changes whenever the file behind `path` is written, replaced or swapped; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class KeyWatcher:
    """Holds the current keyring and replaces it when the keys file changes. One event loop; file I/O runs in a thread.

    `ring` is read on every request. `on_change` is called on the loop after every replacement and every new failure.
    Only `reload_now` raises because of the file: without a valid file the keyring is empty and rejects all keys.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval_seconds: float = 0.5,
        on_change: Callable[[KeyState], None] | None = None,
    ) -> None:
        self.state = KeyState()
        self.ring = self.state.ring
        self._path = path
        self._interval = interval_seconds
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._fingerprint: bytes | None = None
        self._seen: Identity | None = None
        self._seen_since = 0.0
        self._settled = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the file once, then start to watch it. An invalid file is recorded in `state`, not raised."""
        await self._check()
        self._task = asyncio.create_task(self._run(), name="keys-watcher")

    async def stop(self) -> None:
        """Stop watching; the keyring is retained."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def reload_now(self) -> int:
        """Read the file now (SIGHUP, POST /reload) and return the number of keys.

        All or nothing: raises KeysError and retains the old keyring if the file is invalid.
        """
        async with self._lock:
            identity = await asyncio.to_thread(identify, self._path)
            error = await self._load(identity)
        if error is not None:
            raise error
        return len(self.ring)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self._check()
            except Exception:  # noqa: BLE001 - a defect, as in on_change, must not end reloading permanently
                _log.exception("the keys watcher failed; it continues")

    async def _check(self) -> None:
        async with self._lock:
            identity = await asyncio.to_thread(identify, self._path)
            if not (self._settled and identity == self._seen):
                await self._load(identity)

    async def _load(self, identity: Identity | None) -> KeysError | None:
        """Read the file and use it, or record why not.

        `identity` is from before the read, so a write during it is a change at the next check.
        """
        started = time.monotonic()
        error: KeysError | None = None
        try:
            loaded, ring = await asyncio.to_thread(_read, self._path, bool(len(self.ring)))
        except KeysError as invalid:
            error = invalid
            self._failed(error)
        else:
            if loaded.fingerprint != self._fingerprint or self.state.error is not None:
                self._loaded(loaded, ring)
        if identity != self._seen:
            self._seen, self._seen_since = identity, started
        self._settled = identity is None or started - self._seen_since >= _SETTLED_SECONDS
        return error

    def _loaded(self, loaded: store.LoadedKeys, ring: Keyring) -> None:
        self.ring = ring
        self._fingerprint = loaded.fingerprint
        self.state = KeyState(ring)
        _log.info("keys loaded", extra=fields(file=str(self._path), keys=len(ring)))
        for warning in loaded.warnings:
            _log.warning(warning.message, extra=fields(code=warning.code, hint=warning.hint))
        if not len(ring):
            _log.warning("no keys: every request that needs one is rejected", extra=fields(file=str(self._path)))
        self._notify()

    def _failed(self, error: KeysError) -> None:
        if self.state.error is not None and self.state.error.message == error.message:
            return
        self.state = replace(self.state, error=error)
        _log.error(
            "invalid keys file; %s",
            "the previous keys remain in use" if len(self.ring) else "every request that needs a key is rejected",
            extra=fields(file=str(self._path), keys=len(self.ring), code=error.code, reason=error.message),
        )
        self._notify()

    def _notify(self) -> None:
        if self._on_change is not None:
            self._on_change(self.state)


def _read(path: Path, had_keys: bool) -> tuple[store.LoadedKeys, Keyring]:
    loaded = store.load(path)
    if had_keys and loaded.blank:
        raise KeysError(
            f"{path}: the file is blank",
            code="keys-blank",
            hint='treated as an unfinished write; to reject every key, write {"version": 1, "keys": []}',
        )
    return loaded, Keyring(loaded.keys.records)
