"""What is known of a wheel in the cache: on which CPUs it was proven, how far off it was, what it was built without.

A file beside the wheel, `proof.json`. An entry holds for one CPU and one state of the proof's own files, so that
another machine, or a stricter proof, proves again.
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
"""What to call the one CPU back end of an engine that does not load it from a file."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The results by CPU back end (one for an engine that has it linked in), for one CPU."""

    cpu: str
    results: Mapping[str, tuple[proof.Result, ...]]

    @property
    def failures(self) -> dict[str, tuple[proof.Result, ...]]:
        """The results that are no good, of the back ends that have any."""
        found = {name: tuple(r for r in results if not r.passed) for name, results in self.results.items()}
        return {name: results for name, results in found.items() if results}

    def text(self) -> str:
        """Say what failed, in lines: equal failures together."""
        lines = []
        for name, results in self.failures.items():
            by_cause: dict[str, list[str]] = {}
            for result in results:
                by_cause.setdefault(result.failure, []).append(result.weight_type)
            lines += [f"  {name}, weights of {', '.join(types)}: {cause}\n" for cause, types in by_cause.items()]
        return "".join(lines)


@contextlib.contextmanager
def _unpacked(path: Path, folder: Path) -> Iterator[Path]:
    """Unpack the wheel below `folder` for a while; its llama-server. Raises BuildError where no program may run there.

    Not in the system's folder for temporary files, which careful administrators mount with `noexec`: every engine would
    fail there, and be built again and again without what it does not lack.
    """
    with tempfile.TemporaryDirectory(prefix="proof.", dir=folder) as scratch:
        server = wheel.unpack(path, Path(scratch))
        if not os.access(server, os.X_OK):
            raise BuildError(
                f"no program may run below {folder} (mounted noexec), so the engine cannot be proven there; "
                "set XDG_CACHE_HOME to a directory on another file system"
            )
        yield server


def prove_wheel(path: Path, machine: recipe.Machine, folder: Path) -> Proof:
    """Prove each CPU back end of the wheel that this machine can run, unpacked below `folder`. Raises BuildError."""
    with _unpacked(path, folder) as server:
        names = proof.variants(server)
        say(f"proving it on this CPU: {', '.join(names) or machine.model or machine.architecture}")
        results = {name: proof.prove(server, variant=name) for name in names} or {LINKED_IN: proof.prove(server)}
        tiles = {library.name: _tiles(library) for library in sorted(server.parent.parent.glob("*/libggml-cpu*.so*"))}
    return Proof(machine.cpu, results | {name: failures for name, failures in tiles.items() if failures})


def _tiles(library: Path) -> tuple[proof.Result, ...]:
    """Return what is wrong with the library's use of AMX, which only a CPU that has it would show."""
    return tuple(proof.Result("every type", None, problem) for problem in tile_config.incomplete(library.read_bytes()))


def works_without_extra_buffers(path: Path, folder: Path) -> bool:
    """Whether the engine is right when it leaves weights as they are: then it fails for how it lays them out anew."""
    with _unpacked(path, folder) as server:
        results = proof.prove(server, options=["--no-repack"])
    return all(result.passed for result in results)


def state() -> str:
    """Return the hash of what the proof is made of."""
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
    """Whether the wheel in `folder` has passed today's proof on this CPU."""
    entry = _read(folder)["proven"].get(machine.cpu)
    return isinstance(entry, dict) and entry.get("state") == state()


def write(folder: Path, passed: Proof, *, without: tuple[str, ...] = ()) -> None:
    """Note that the wheel in `folder` has passed; `without` names what it was built without."""
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
