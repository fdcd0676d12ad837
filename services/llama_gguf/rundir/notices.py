"""Warnings that a program leaves in its record in the run directory, for `status` and the health server to pass on.

The engine's program writes them into RunDir.engine_phase as `warnings`, a list of {code, message, hint}. Strangers may
read them in /health, so they name settings, not files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

NOTICE_CODES: Mapping[str, str] = {
    "cpu-variant-crashed": "A variant of the engine's CPU code crashed on this machine: a lower, slower one runs.",
    "no-gpu": "The engine could use a GPU, or was asked to, but sees none: the model runs on the CPU.",
}
"""Code -> what it means, of those that are no problems of the configuration (codes.PROBLEM_CODES has the others)."""

_KEPT = 32


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that works, but not as it should. `code` is stable: machines match on it."""

    code: str
    message: str
    hint: str = ""


def notices_as_data(notices: Iterable[Notice]) -> list[dict[str, str]]:
    """Return notices as JSON values."""
    return [asdict(notice) for notice in notices]


def read_notices(value: object) -> tuple[Notice, ...]:
    """Return the notices in a record's `warnings`; what has another form is left out."""
    if not isinstance(value, list):
        return ()
    texts = [
        tuple(item.get(name, "") for name in ("code", "message", "hint")) for item in value if isinstance(item, dict)
    ]
    return tuple(
        Notice(code, message, hint)
        for code, message, hint in texts[:_KEPT]
        if isinstance(code, str) and isinstance(message, str) and isinstance(hint, str) and code and message
    )
