"""The proofs of a cached wheel: on which CPUs it passed, with which differences, and which features were disabled.

A file beside the wheel, `proof.json`. An entry is valid for one CPU and one version of the proof's own files, so that
another machine, or a changed proof, proves again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.engine import proof, recipe, tile_config, wheel
from image.engine.compiler import BuildError, say

RECORD = "proof.json"
LINKED_IN = "the engine"
"""The name of the only CPU backend, of an engine that has it linked in."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The results by CPU backend (one for an engine that has it linked in), for one CPU."""

    cpu: str
    results: Mapping[str, tuple[proof.Result, ...]]

    @property
    def failures(self) -> dict[str, tuple[proof.Result, ...]]:
        """The failed results, by backend."""
        found = {name: tuple(r for r in results if not r.passed) for name, results in self.results.items()}
        return {name: results for name, results in found.items() if results}

    def text(self) -> str:
        """Return what failed, in lines: equal failures together."""
        lines = []
        for name, results in self.failures.items():
            by_cause: dict[str, list[str]] = {}
            for result in results:
                by_cause.setdefault(result.failure, []).append(result.weight_type)
            lines += [f"  {name}, weights of {', '.join(types)}: {cause}\n" for cause, types in by_cause.items()]
        return "".join(lines)


@contextlib.contextmanager
def _unpacked(path: Path, folder: Path) -> Iterator[Path]:
    """Unpack the wheel temporarily below `folder`; yield its llama-server. Raises BuildError on a noexec mount.

    Not in the system's temporary directory, which is often mounted `noexec`: every engine would fail there, and be
    built again with one feature less each time.
    """
    with tempfile.TemporaryDirectory(prefix="proof.", dir=folder) as scratch:
        server = wheel.unpack(path, Path(scratch))
        if not os.access(server, os.X_OK):
            raise BuildError(
                f"programs below {folder} cannot be executed (mounted noexec), so the engine cannot be proven there; "
                "set XDG_CACHE_HOME to a directory on another file system"
            )
        yield server


def prove_wheel(path: Path, machine: recipe.Machine, folder: Path) -> Proof:
    """Prove each CPU backend of the wheel that this machine can run, unpacked below `folder`. Raises BuildError."""
    with _unpacked(path, folder) as server:
        names = proof.variants(server)
        say(f"proving the engine on this CPU: {', '.join(names) or machine.model or machine.architecture}")
        results = {name: proof.prove(server, variant=name) for name in names} or {LINKED_IN: proof.prove(server)}
        tiles = {library.name: _tiles(library) for library in sorted(server.parent.parent.glob("*/libggml-cpu*.so*"))}
    return Proof(machine.cpu, results | {name: failures for name, failures in tiles.items() if failures})


def _tiles(library: Path) -> tuple[proof.Result, ...]:
    """Return the defects in the library's tile configurations, which otherwise only a CPU with AMX shows."""
    return tuple(proof.Result("every type", None, problem) for problem in tile_config.incomplete(library.read_bytes()))


def works_without_extra_buffers(path: Path, folder: Path) -> bool:
    """Return whether the engine passes with `--no-repack`: then repacking is what fails."""
    with _unpacked(path, folder) as server:
        results = proof.prove(server, options=["--no-repack"])
    return all(result.passed for result in results)


def state() -> str:
    """Return the hash of the proof's own files."""
    digest = hashlib.sha256()
    for name in ("proof_expected.json", "proof.py", "proof_model.py", "tile_config.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("proven"), dict):
            return found
    return {"without": [], "proven": {}}


def is_proven(folder: Path, machine: recipe.Machine) -> bool:
    """Return whether the wheel in `folder` has passed the present proof on this CPU."""
    entry = _read(folder)["proven"].get(machine.cpu)
    return isinstance(entry, dict) and entry.get("state") == state()


def write(folder: Path, passed: Proof, *, without: tuple[str, ...] = ()) -> None:
    """Record that the wheel in `folder` has passed; `without` names the disabled features."""
    record = _read(folder)
    record["without"] = list(without) or record.get("without", [])
    record["proven"][passed.cpu] = {
        "state": state(),
        "largest_difference": {
            name: {result.weight_type: round(result.deviation or 0.0, 4) for result in results}
            for name, results in passed.results.items()
        },
    }
    temporary = folder / f"{RECORD}.new"
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / RECORD)
