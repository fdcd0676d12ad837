"""supervisord's event listener as a program: `python -m llama_gguf.cli.listener`.

In `cli` because it combines two packages that do not import each other: the runtime's listener and the engine's
diagnosis. Not a click command: only supervisord starts it. Until the first program exits it imports almost nothing.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from llama_gguf.runtime.event_protocol import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_gguf.engine.known_failures import Diagnosis
    from llama_gguf.rundir.exits import ExitStatus, ProcessExit
    from llama_gguf.rundir.snapshot import Snapshot
    from llama_gguf.runtime.fatal_listener import FatalListener
    from llama_gguf.settings import RunDir


_LOAD_LINES = 2000  # as many as llama-server writes while it loads a model, with debug's


@functools.cache
def _listener() -> FatalListener:
    # Imported at the first event: see the docstring of the module.
    from llama_gguf import logs  # noqa: PLC0415
    from llama_gguf.rundir.snapshot import read_from_environment  # noqa: PLC0415
    from llama_gguf.rundir.supervisord_client import Supervisord  # noqa: PLC0415
    from llama_gguf.runtime.fatal_listener import FatalListener  # noqa: PLC0415

    snapshot = read_from_environment(os.environ)
    settings, run = snapshot.settings, snapshot.locations.run
    # stdout belongs to the event protocol
    logs.configure("listener", format=settings.logging.format, level=settings.logging.level, stream=sys.stderr)
    supervisord = Supervisord(run.supervisord_socket)
    return FatalListener(
        run,
        settings.supervisor,
        supervisord,
        functools.partial(_diagnose, snapshot),
        gave_up=functools.partial(_gave_up, snapshot),
        needs_less=functools.partial(_needs_less, run),
        optional=frozenset(one.program for one in snapshot.models if not one.required),
    )


def _diagnose(
    snapshot: Snapshot, program: str, tail: Sequence[str], exit_code: int | None, signal: str | None
) -> Diagnosis | None:
    from llama_gguf.engine.diagnose import diagnose, name_variants  # noqa: PLC0415
    from llama_gguf.rundir import engine_variant  # noqa: PLC0415
    from llama_gguf.rundir.exits import ExitStatus  # noqa: PLC0415

    own = snapshot.of_engine(program)
    record = engine_variant.read(own.locations.run.engine_variant)
    if record is not None and record.pinned and not record.variant:  # the next engine's program has begun meanwhile
        record = replace(record, variant=own.settings.engine.cpu_variant)
    return name_variants(diagnose(tail, exit_code, signal), ExitStatus(exit_code, signal), record)


def _needs_less(run: RunDir, program: str, end: ProcessExit) -> bool:
    from llama_gguf.engine.diagnose import out_of_memory  # noqa: PLC0415
    from llama_gguf.rundir import engine_reduction  # noqa: PLC0415
    from llama_gguf.runtime.log_tail import tail_lines  # noqa: PLC0415

    record = engine_reduction.read(run.of_engine(program).engine_reduction)
    if record is None:
        return False
    failed = out_of_memory(tail_lines(run.log(program), _LOAD_LINES), end.status.code, end.status.signal)
    return engine_reduction.is_mitigated(record, end, failed)


def _gave_up(snapshot: Snapshot, program: str, ended: ExitStatus) -> None:
    from llama_gguf.engine.variant_choice import withdraw  # noqa: PLC0415
    from llama_gguf.settings.locations import is_engine  # noqa: PLC0415

    if is_engine(program) and ended.illegal_instruction:
        withdraw(snapshot.of_engine(program))


def _handle(event: str, payload: dict[str, str]) -> None:
    _listener().handle(event, payload)


def main() -> int:
    """Serve events until supervisord closes stdin; return the exit code."""
    serve(sys.stdin.buffer, sys.stdout.buffer, _handle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
