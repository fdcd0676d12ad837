"""The files llama-server is started with, and the steps by which they get here, as plain values.

Meeting point of `models` (which fills them) and `engine.argv` (which turns them into arguments). Touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Phase = Literal["resolving", "downloading", "verifying", "starting", "exec"]
"""What the engine program is doing before llama-server runs; the `phase` of RunDir.engine_state."""


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA adapter on disk and its strength."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Every file llama-server reads, by absolute path; of a split model the first part."""

    model: Path
    mmproj: Path | None = None
    draft: Path | None = None
    lora: tuple[LoraFile, ...] = ()
    chat_template: Path | None = None
    draft_names_its_kind: bool = False  # the draft's own metadata says how to speculate (dflash, MTP)


class Reporter(Protocol):
    """Whom the steps tell how far they are; implementations throttle, callers need not."""

    def phase(self, phase: Phase, detail: str) -> None:
        """Say that a new step begins."""
        ...

    def progress(self, done: int, total: int | None) -> None:
        """Say how many bytes of the current step are done, and of how many if that is known."""
        ...
