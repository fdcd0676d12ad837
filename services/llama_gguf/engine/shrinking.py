"""Less after llama-server ran out of memory: what the next start goes without, as far as `engine.shrink` allows.

`less` decides and changes nothing; the engine program uses `ShrinkSteps`, which evaluates how the engine before it
ended, and records what it runs with.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from llama_gguf.logs import fields
from llama_gguf.models.gguf.facts import has_quantisable_cache
from llama_gguf.rundir import engine_reduction
from llama_gguf.rundir.engine_reduction import EngineReduction, Memory
from llama_gguf.rundir.exits import process_exits, read_supervisord_log, read_tails
from llama_gguf.rundir.notices import Notice
from llama_gguf.settings.one_model import with_engine
from llama_gguf.settings.sections.engine_parts.auto import known

if TYPE_CHECKING:
    from llama_gguf.models.gguf.header import Header
    from llama_gguf.rundir.snapshot import Snapshot
    from llama_gguf.settings.sections.engine import Engine

log = logging.getLogger(__name__)

_LOG_BYTES = 65_536
_LARGE_TYPES = ("f32", "f16", "bf16")
_SMALL_TYPE = "q8_0"


def less(engine: Engine, failed: Memory, *, layers: int, quantisable: bool = True) -> dict[str, int | str] | None:
    """Return the engine settings that need less of the memory that failed, None if nothing may be reduced further.

    `layers`: how many the model has; `quantisable`: whether the cache can have another type.
    """
    allowed = engine.shrink
    slots, context = known(engine.slots) or 0, known(engine.context_per_slot) or 0
    for step in allowed.steps:
        if step == "slots" and slots > allowed.min_slots:
            return {"slots": max(allowed.min_slots, slots // 2)}
        if step == "context" and context > allowed.min_context_per_slot:
            return {"context_per_slot": max(allowed.min_context_per_slot, context // 2)}
        if step == "cache_type" and quantisable and (types := _smaller_types(engine)):
            return types
        if step == "layers" and failed == "device":
            current = engine.gpu_layers if isinstance(engine.gpu_layers, int) else layers
            if current > allowed.min_gpu_layers:
                return {"gpu_layers": max(allowed.min_gpu_layers, current * 3 // 4)}
    return None


def _smaller_types(engine: Engine) -> dict[str, int | str]:
    types: dict[str, int | str] = {}
    if engine.cache_type_k in _LARGE_TYPES:
        types["cache_type_k"] = _SMALL_TYPE
    if engine.cache_type_v in _LARGE_TYPES and engine.flash_attention != "off":  # which a quantised V cache requires
        types["cache_type_v"] = _SMALL_TYPE
    return types


class ShrinkSteps:
    """How the engine program shrinks: `apply_exits` first, then `start` once it knows the model."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._configured = snapshot
        self._run = snapshot.locations.run
        self._record = EngineReduction()

    def apply_exits(self) -> Snapshot:
        """Evaluate how the engine before this one ended; return the settings to run with."""
        if not self._configured.settings.engine.shrink.steps:
            return self._configured
        before = engine_reduction.read(self._run.engine_reduction) or EngineReduction()
        self._record = replace(before, pid=0, left=())
        ends = process_exits(read_supervisord_log(self._run), self._run.engine)
        if own := [end.status for end in ends if before.pid and end.pid == before.pid]:
            from llama_gguf.engine.diagnose import out_of_memory  # noqa: PLC0415 - costs 10 ms, and a first start has none

            tail = read_tails((self._run.log(self._run.engine),), _LOG_BYTES).splitlines()
            failed = out_of_memory(tail, own[-1].code, own[-1].signal)
            if failed and (values := self._less(failed)):
                self._reduce(values, before.pid)
        engine_reduction.write(self._record, self._run.engine_reduction)
        return self._reduced()

    @property
    def has_reduced(self) -> bool:
        """Whether the engine runs with less than configured."""
        return bool(self._record.values)

    def begin_with(self, snapshot: Snapshot) -> None:
        """Reduce from these settings on: what was left to the plan has values now."""
        self._configured = snapshot

    def start(self, header: Header) -> None:
        """Record that this process runs the model with these settings."""
        if not self._configured.settings.engine.shrink.steps:
            return
        self._record = replace(
            self._record,
            pid=os.getpid(),
            layers=header.number(f"{header.architecture}.block_count") + 1,
            quantisable=has_quantisable_cache(header),
        )
        memories: tuple[Memory, ...] = ("device", "host")
        left = tuple(memory for memory in memories if self._less(memory))
        engine_reduction.write(replace(self._record, left=left), self._run.engine_reduction)

    def notice(self) -> Notice | None:
        """Return the warning that the engine runs with less than configured, if it does."""
        if not self._record.values:
            return None
        engine = self._configured.settings.engine
        values = [f"{name} {value} instead of {getattr(engine, name)}" for name, value in self._record.values.items()]
        message = f"llama-server ran out of memory, so it runs with less than configured: {', '.join(values)}"
        return Notice("engine-reduced", message, "configure these values, or use a smaller quantisation of the model")

    def _reduced(self) -> Snapshot:
        settings = with_engine(self._configured.settings, **self._record.values)
        return replace(self._configured, settings=settings)

    def _less(self, failed: Memory) -> dict[str, int | str] | None:
        record, engine = self._record, self._reduced().settings.engine
        return less(engine, failed, layers=record.layers, quantisable=record.quantisable)

    def _reduce(self, values: dict[str, int | str], pid: int) -> None:
        record = self._record
        self._record = replace(record, values={**record.values, **values}, after=(*record.after, pid))
        log.warning(
            "llama-server ran out of memory: it is started with less",
            extra=fields(pid=pid, hint="see engine.shrink; `llama-gguf plan` shows the estimate", **values),
        )
