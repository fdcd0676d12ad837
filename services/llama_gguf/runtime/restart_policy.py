"""When to give up on a program: the crashes so far, and the rules. Pure.

supervisord gives up only on a program that keeps exiting within its first second. One that loads a model for a minute
and then crashes would be restarted, and billed, for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llama_gguf.errors import ExitCode
from llama_gguf.rundir.crashes import Crash
from llama_gguf.rundir.exits import ExitStatus
from llama_gguf.settings.locations import is_engine

if TYPE_CHECKING:
    from llama_gguf.settings.sections.supervisor import Supervisor


def reason_to_give_up(
    event: str,
    program: str,
    status: ExitStatus,
    crashes: Iterable[Crash],
    rules: Supervisor,
    *,
    was_ready: bool,
    now: float,
) -> str | None:
    """Return why `program` must not be restarted any more, or None while it still is.

    `event` is supervisord's new state: EXITED (after it had started), BACKOFF (within its first second), FATAL.
    """
    if status.code == ExitCode.CONFIG:
        return f"{program} refused to start ({status}): a restart cannot help"
    if event == "FATAL":
        return f"{program} cannot be started: {status}, {rules.start_retries + 1} times in a row"
    if event != "EXITED":
        return None  # supervisord counts these
    counted = [crash for crash in crashes if crash.program == program and not crash.mitigated]
    recent = [crash for crash in counted if now - crash.at <= rules.restart_window_seconds]
    if is_engine(program) and not was_ready and len(recent) > rules.start_retries:
        return f"{program} never became ready: {status}, {len(recent)} times"
    if len(recent) > rules.max_restarts:
        return f"{program} keeps crashing: {len(recent)} times in {rules.restart_window_seconds:.0f} s, last {status}"
    return None
