"""The audit log: one JSON line for every change of keys and every admin call, in a hash chain.

A line is {seq, ts, actor, action, target, details, prev, hash}; `hash` is the SHA-256 of the rest in canonical JSON
and `prev` the hash of the line before (64 zeros in the first). So `verify` finds an edited, inserted, removed or moved
line and a missing beginning. Truncation shows only by a head stored elsewhere: `<file>.head` holds the last seq and
hash, written after each line, and the keys file names the entry of its last change. Whoever can write all three can
forge the whole log, as the chain has no secret key; to detect that, store the head that `audit verify` prints on
another machine and pass it as `--head`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llama_gguf import atomic_file
from llama_gguf.errors import KeysError
from llama_gguf.timestamps import utc_text

Detail = str | int | float | bool | None | list[str]

GAP = "audit.gap"
"""The action of an entry which records that entries before it are missing or were replaced."""
_FIRST = "0" * 64
_TAIL_BYTES = 1 << 20  # more than any line
_FIELDS = frozenset({"seq", "ts", "actor", "action", "target", "details", "prev", "hash"})


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The last entry of a log: the end of the chain."""

    seq: int = 0
    hash: str = _FIRST

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def read(cls, text: str) -> AuditHead:
        """Parse the text form. Raises ValueError."""
        seq, _, digest = text.strip().partition(":")
        if not (seq.isascii() and seq.isdigit() and len(digest) == 64):
            raise ValueError("a head is SEQ:HASH, as `llama-gguf audit verify` prints it")
        return cls(int(seq), digest)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the log."""

    seq: int
    ts: str
    actor: str
    action: str
    target: str
    details: Mapping[str, Detail] = field(default_factory=dict)
    prev: str = _FIRST
    hash: str = ""

    def sealed(self) -> AuditEntry:
        """Return the entry with the hash of its other fields."""
        plain = {name: getattr(self, name) for name in _FIELDS - {"hash"}}
        return AuditEntry(**plain, hash=hashlib.sha256(_canonical(plain)).hexdigest())

    def head(self) -> AuditHead:
        """Return the head of a log that ends here."""
        return AuditHead(self.seq, self.hash)

    def line(self) -> bytes:
        """Return the line as in the file."""
        return _canonical({name: getattr(self, name) for name in _FIELDS}) + b"\n"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of `verify`: the valid entries before the first bad line (0 = none), and what is wrong there."""

    entries: int
    head: AuditHead
    bad_line: int = 0
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.problem


def _canonical(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class AuditLog:
    """Appends to one log; safe between processes (a lock file), and durable when `append` returns."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], dt.datetime] = _now,
        failpoint: atomic_file.Failpoint = atomic_file.no_failpoint,
    ) -> None:
        self.path = path
        self._clock = clock
        self._failpoint = failpoint

    def append(
        self,
        *,
        actor: str,
        action: str,
        target: str = "",
        details: Mapping[str, Detail] | None = None,
        known: AuditHead | None = None,
    ) -> AuditEntry:
        """Write one line, durably. `details` must contain no secret. Blocking: from an event loop, call it in a thread.

        Where the log does not reach `known`, an entry that is recorded elsewhere, `audit.gap` is recorded first: a new
        line must not hide that, and a lost log must not stop changes of keys.

        Raises KeysError if the log cannot be written, or is truncated, which a new line would hide.
        """
        real = atomic_file.resolve(self.path)
        with atomic_file.exclusive(real, failpoint=self._failpoint):
            try:
                descriptor = os.open(real, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                with os.fdopen(descriptor, "r+b", buffering=0) as file:
                    last, end, torn = _last(file, real)
                    _compare_with_head(last, real)
                    if torn:  # a crash interrupted `append`: no caller relies on this line
                        file.truncate(end)
                        recovery = self._after(last, "audit", "audit.recover", "incomplete line", {"bytes": torn})
                        last = self._write(file, real, recovery).head()
                    if known and (known.seq > last.seq or (known.seq == last.seq and known != last)):
                        found: dict[str, Detail] = {"recorded": str(known), "entries": last.seq}
                        last = self._write(file, real, self._after(last, "audit", GAP, "", found)).head()
                    return self._write(file, real, self._after(last, actor, action, target, details or {}))
            except OSError as error:
                raise atomic_file.io_error(error, "append to", self.path) from error

    def _after(
        self, last: AuditHead, actor: str, action: str, target: str, details: Mapping[str, Detail]
    ) -> AuditEntry:
        now = utc_text(self._clock())
        return AuditEntry(last.seq + 1, now, actor, action, target, dict(details), last.hash).sealed()

    def _write(self, file: io.FileIO, real: Path, entry: AuditEntry) -> AuditEntry:
        if entry.seq == 1:
            atomic_file.chown_like(real.parent, real)
            atomic_file.sync_directory(real.parent)
        size = os.fstat(file.fileno()).st_size
        try:
            atomic_file.write_all(file.fileno(), entry.line())
            self._failpoint("appended")
            atomic_file.sync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
        self._failpoint("append-synced")
        atomic_file.replace(_head_path(real), str(entry.head()).encode() + b"\n", failpoint=self._failpoint)
        return entry


def _head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _read_head(path: Path) -> AuditHead | None:
    """Return the head from the file beside the log, None if there is none."""
    try:
        return AuditHead.read(_head_path(path).read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise KeysError(
            f"{_head_path(path)} is damaged",
            code="audit-damaged",
            hint="move it away together with the log, as evidence",
        ) from None


def _last(file: io.FileIO, path: Path) -> tuple[AuditHead, int, int]:
    """Return the last complete line's head, where that line ends, and how many bytes of an incomplete one follow."""
    size = os.fstat(file.fileno()).st_size
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(file.fileno(), size - start, start)
    complete, newline, torn = tail.rpartition(b"\n")
    if not newline and start == 0:
        return AuditHead(), 0, len(torn)
    try:
        entry = _parse(complete.rpartition(b"\n")[2])
    except ValueError:
        raise KeysError(
            f"the last line of {path} is damaged",
            code="audit-damaged",
            hint=f"keep it as evidence: move {path.name} and {path.name}.head away, and a new log begins",
        ) from None
    return entry.head(), size - len(torn), len(torn)


def _compare_with_head(last: AuditHead, path: Path) -> None:
    head = _read_head(path)
    if head and (head.seq > last.seq or (head.seq == last.seq and head != last)):
        raise KeysError(
            f"{path} ends at entry {last.seq}, but entry {head.seq} was the last one written",
            code="audit-truncated",
            hint=f"keep it as evidence: move {path.name} and {path.name}.head away, and a new log begins",
        )


def _parse(line: bytes) -> AuditEntry:
    """Parse one line. Raises ValueError with what is wrong, which does not quote the line."""
    try:
        plain = json.loads(line)
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(plain, dict) or plain.keys() != _FIELDS or type(plain["seq"]) is not int:
        raise ValueError("is not an entry of an audit log")
    if not all(isinstance(plain[name], dict if name == "details" else str) for name in _FIELDS - {"seq"}):
        raise ValueError("is not an entry of an audit log")
    return AuditEntry(**plain)


def entries(path: Path) -> Iterator[AuditEntry]:
    """Yield the valid entries, in the order of the file; only `verify` checks the chain."""
    for _, line in _lines(path):
        with suppress(ValueError):
            yield _parse(line)


def verify(path: Path, *, expected: AuditHead | None = None, known: AuditHead | None = None) -> Verification:
    """Check the hash chain, against the head file, the `expected` head and the one `known` to the keys file.

    Stops at the first bad line. Raises KeysError if there is no log to check, and no record of one.
    """
    recorded = [head for head in (_read_head(atomic_file.resolve(path)), expected, known) if head]
    last = AuditHead()
    lines = _lines(path) if path.exists() or not recorded else iter(())
    for number, line in lines:
        problem = _problem(line, last, recorded)
        if problem:
            return Verification(last.seq, last, number, problem)
        last = _parse(line).head()
    furthest = max((head.seq for head in recorded), default=0)
    if furthest > last.seq:
        where = ", which the keys file records" if known and known.seq == furthest else ""
        return Verification(last.seq, last, last.seq + 1, f"is missing, and with it all up to entry {furthest}{where}")
    if len(recorded) == (known is not None) and last.seq > 1:
        return Verification(last.seq, last, 0, f"{_head_path(path).name} is missing, so truncation cannot be detected")
    return Verification(last.seq, last)


def _problem(line: bytes, last: AuditHead, recorded: list[AuditHead]) -> str:
    if not line.endswith(b"\n"):
        return "is incomplete: a crash, or it was truncated; the next entry replaces it"
    try:
        entry = _parse(line)
    except ValueError as error:
        return str(error)
    if entry.sealed().hash != entry.hash or entry.line() != line:
        return "was changed: its hash does not match its content"
    if entry.seq != last.seq + 1 or entry.prev != last.hash:
        return "does not follow the line before: lines were removed, inserted or moved"
    return _contradiction(entry, recorded)


def _contradiction(entry: AuditEntry, recorded: list[AuditHead]) -> str:
    if entry.action == GAP:
        reached, left = entry.details.get("recorded"), entry.details.get("entries")
        return f"records a truncated or replaced log: the keys file named entry {reached}, and {left} were left"
    if any(head.seq == entry.seq and head.hash != entry.hash for head in recorded):
        return "is not the entry that was recorded as the head: the log was rewritten"
    return ""


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except FileNotFoundError:
        raise KeysError(f"{path}: there is no audit log", code="audit-missing") from None
    except OSError as error:
        raise atomic_file.io_error(error, "read", path) from error
