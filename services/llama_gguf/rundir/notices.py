"""Warnings of a running appliance, which `status` and the health server show.

The engine's program writes them into RunDir.engine_phase as `warnings`, a list of {code, message, hint}. They are
public in /health, so they name settings, not files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

NOTICE_CODES: Mapping[str, str] = {
    "cpu-variant-crashed": "A variant of the engine's CPU code crashed on this machine: a lower, slower one runs.",
    "engine-auto": "Not a fault: the values that were chosen for engine settings that are auto, and why.",
    "engine-reduced": "The engine ran out of memory: it runs with less than configured, as engine.shrink allows.",
    "memory-not-locked": "The weights are not locked in memory as configured: the limit of locked memory is too low.",
    "no-gpu": "The engine can use a GPU, or is configured to, but finds none: the model runs on the CPU.",
}
"""Code -> meaning, without the problems of the configuration (codes.PROBLEM_CODES)."""

_MAX_NOTICES = 32


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning: something works, but not as intended. `code` is stable, for machines to match."""

    code: str
    message: str
    hint: str = ""


def notices_as_data(notices: Iterable[Notice]) -> list[dict[str, str]]:
    """Return notices as JSON values."""
    return [asdict(notice) for notice in notices]


def read_notices(value: object) -> tuple[Notice, ...]:
    """Return the notices in a record's `warnings`, without the malformed ones."""
    if not isinstance(value, list):
        return ()
    texts = [
        tuple(item.get(name, "") for name in ("code", "message", "hint")) for item in value if isinstance(item, dict)
    ]
    return tuple(
        Notice(code, message, hint)
        for code, message, hint in texts[:_MAX_NOTICES]
        if isinstance(code, str) and isinstance(message, str) and isinstance(hint, str) and code and message
    )
