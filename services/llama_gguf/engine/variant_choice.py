"""Which variant of ggml's CPU code llama-server loads: the best that this CPU supports and that has not crashed on it.

`choose` decides and changes nothing; the engine program uses `VariantSteps`, which evaluates how the engine before it
ended, and records what it runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.cpu import Cpu, read_cpu
from llama_gguf.engine import variant_memory
from llama_gguf.engine.cgroup import read_or_empty
from llama_gguf.engine.cpu_libraries import VARIABLE, can_select_variant, find_libraries, sha256
from llama_gguf.engine.cpu_variants import TABLES, Table, missing, supported
from llama_gguf.engine.variant_memory import CrashedVariant
from llama_gguf.errors import ExitCode, KeysError, LaunchError
from llama_gguf.logs import fields
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.engine_variant import EngineVariant, Rejected
from llama_gguf.rundir.exits import process_exits, read_supervisord_log
from llama_gguf.rundir.notices import Notice

if TYPE_CHECKING:
    from llama_gguf.rundir.snapshot import Snapshot
    from llama_gguf.settings import Settings

log = logging.getLogger(__name__)

AUTO = "auto"
_CPUINFO = Path("/proc/cpuinfo")
_AUTO_HINT = "set engine.cpu_variant to auto"


@dataclass(frozen=True, slots=True)
class HostCpu:
    """What determines which variants can run: uname's machine name, and the text of /proc/cpuinfo."""

    name: str
    cpuinfo: str

    @property
    def table(self) -> Table:
        """The variants for this machine's architecture."""
        return TABLES.get(self.name, {})


def this_machine() -> HostCpu:
    """Return the machine of this process."""
    return HostCpu(os.uname().machine, read_or_empty(_CPUINFO))


def choose(
    settings: Settings, binary: Path, machine: HostCpu, memory: Path, earlier: tuple[Rejected, ...] = ()
) -> EngineVariant | None:
    """Return the choice for `binary`, with lower and rejected variants; None if llama-server itself must choose.

    `memory` is the file of what crashed in earlier runs, `earlier` what crashed in this one. Raises LaunchError for a
    pinned variant that is not available.
    """
    pin = settings.engine.cpu_variant
    libraries = find_libraries(binary)
    selectable = can_select_variant(binary)
    cpu = read_cpu(machine.cpuinfo)
    if pin != AUTO:
        _check_pin(pin, binary, libraries, machine.table, cpu, selectable=selectable)
        found = EngineVariant(pin, sha256=sha256(libraries[pin]), pinned=True)
        return replace(found, cpu=cpu.fingerprint if cpu else "")
    if not selectable or cpu is None:
        return None
    candidates = [name for name in supported(machine.table, cpu.flags) if name in libraries]
    if not candidates:
        return None
    crashed_here = {item.variant for item in earlier}
    known = [name for name in _remembered(memory, cpu, libraries) if name in candidates and name not in crashed_here]
    # One must be tried, and the lowest is never rejected while it is the lowest: files can have changed since.
    left = [name for name in candidates if name not in {*crashed_here, *known}] or candidates[-1:]
    rejected = (*(Rejected(name) for name in known), *earlier)
    return EngineVariant(
        variant=left[0],
        sha256=sha256(libraries[left[0]]),
        cpu=cpu.fingerprint,
        lower=tuple(left[1:]),
        rejected=tuple(item for item in rejected if item.variant != left[0]),
    )


def _remembered(memory: Path, cpu: Cpu, libraries: Mapping[str, Path]) -> list[str]:
    """Return the variants that crashed on this kind of CPU in earlier runs, with the current libraries."""
    entries = [entry for entry in variant_memory.read(memory) if entry.cpu == cpu.fingerprint]
    return [
        entry.variant
        for entry in entries
        if entry.variant in libraries and entry.sha256 == sha256(libraries[entry.variant])
    ]


def _check_pin(
    pin: str, binary: Path, libraries: dict[str, Path], table: Table, cpu: Cpu | None, *, selectable: bool
) -> None:
    setting = f"engine.cpu_variant is {pin}, but"
    if not libraries or not selectable:
        why = "it has no variants" if not libraries else f"its libggml does not support {VARIABLE}"
        raise LaunchError(
            f"{setting} the CPU variant of {binary} cannot be selected: {why}",
            hint=f"{_AUTO_HINT}, or use an engine of the cpu or cuda image",
            exit_code=ExitCode.CONFIG,
        )
    runs = [name for name in (supported(table, cpu.flags) if cpu else table) if name in libraries]
    hint = f"{_AUTO_HINT}, or to one that this CPU supports: {', '.join(runs)}" if runs else _AUTO_HINT
    if pin not in libraries:
        raise LaunchError(f"{setting} {binary} has no such variant", hint=hint, exit_code=ExitCode.CONFIG)
    lacks = missing(table, pin, cpu.flags) if cpu and pin in table else []
    if lacks:
        raise LaunchError(f"{setting} this CPU lacks {', '.join(lacks)}", hint=hint, exit_code=ExitCode.CONFIG)


class VariantSteps:
    """How the engine program uses variants: `apply_exits` first, then `choose`, and `step_down` after a crash.

    Steps down one by one: it is unknown which instruction was illegal, and so which other variants contain it.
    """

    def __init__(self, snapshot: Snapshot, machine: HostCpu) -> None:
        self._settings = snapshot.settings
        self._run = snapshot.locations.run
        self._memory = snapshot.locations.cpu_variants_file
        self._machine = machine
        self._record = EngineVariant()

    def apply_exits(self) -> None:
        """Evaluate how the engine before this one ended, and record that none runs now."""
        before = engine_variant.read(self._run.engine_variant) or EngineVariant()
        self._record = engine_variant.apply_exits(
            before, process_exits(read_supervisord_log(self._run), self._run.engine)
        )
        # Also when nothing has changed: a process that ends before `choose` must not be taken for the one before.
        engine_variant.write(self._record, self._run.engine_variant)
        if self._record.rejected != before.rejected:
            self._remember(self._record.rejected[-1], following=before.lower[0])

    def choose(self, binary: Path) -> str | None:
        """Return the variant for `binary`, recorded as what this process runs; None if llama-server must choose.

        Raises LaunchError.
        """
        chosen = choose(self._settings, binary, self._machine, self._memory, self._record.rejected_now)
        self._record = replace(chosen, pid=os.getpid()) if chosen else EngineVariant()
        engine_variant.write(self._record, self._run.engine_variant)
        if chosen is None:
            return None
        rejected = chosen.rejected_names
        log.info("CPU variant", extra=fields(variant=chosen.variant, pinned=chosen.pinned, crashed_before=rejected))
        return chosen.variant

    def notice(self) -> Notice | None:
        """Return the warning that a lower variant runs than this CPU supports, if one crashed."""
        crashed = self._record.rejected_names
        if not crashed:
            return None
        message = f"{', '.join(crashed)} crashed on this machine, so the CPU variant {self._record.variant} runs"
        return Notice("cpu-variant-crashed", message, "it may be slower; report it with `llama-gguf diagnostics`")

    def step_down(self) -> bool:
        """Reject the variant in use, because a query of llama-server crashed; return whether one is left."""
        if not self._record.can_step_down:
            return False
        following = self._record.lower[0]
        self._record = engine_variant.reject(self._record, engine_variant.QUERY_PID)
        self._remember(self._record.rejected[-1], following=following)
        return True

    def _remember(self, crashed: Rejected, following: str) -> None:
        """Log the crash, once, and store it for this machine."""
        log.warning(
            "the engine crashed by an illegal instruction in its CPU code; a lower variant is used from now on",
            extra=fields(
                crashed=crashed.variant,
                variant=following,
                file=str(self._memory),
                hint="it may be slower; report it with `llama-gguf diagnostics`, remove the file to try it again",
            ),
        )
        try:
            variant_memory.add(self._memory, [CrashedVariant(self._record.cpu, crashed.variant, crashed.sha256)])
        except KeysError as error:
            log.warning(
                "the crash cannot be stored beyond this run",
                extra=fields(reason=error.message, hint=error.hint or None),
            )


def withdraw(snapshot: Snapshot) -> None:
    """Remove what this run rejected, because the lowest variant crashed too: the variants are not the cause."""
    record = engine_variant.read(snapshot.locations.run.engine_variant)
    if record is None or record.pinned or not record.rejected_now:
        return
    entries = [CrashedVariant(record.cpu, item.variant, item.sha256) for item in record.rejected_now]
    try:
        variant_memory.withdraw(snapshot.locations.cpu_variants_file, entries)
    except KeysError as error:
        log.warning("the crashed variants remain rejected", extra=fields(reason=error.message))
