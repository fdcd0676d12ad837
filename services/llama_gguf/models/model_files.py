"""The files llama-server is started with, and the steps that put them on disk, as plain values.

Meeting point of `models` (which fills them) and `engine.argv` (which turns them into arguments). Touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llama_gguf.states import Phase


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA adapter on disk and its scale."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Every file llama-server reads, by absolute path; of a split model, the first part."""

    model: Path
    mmproj: Path | None = None
    draft: Path | None = None
    lora: tuple[LoraFile, ...] = ()
    chat_template: Path | None = None
    draft_sets_spec_type: bool = False  # llama-server derives --spec-type from the draft's metadata (dflash, MTP)


class Reporter(Protocol):
    """Where the steps report their progress; implementations throttle, callers need not."""

    def phase(self, phase: Phase, detail: str) -> None:
        """Report that a new step starts."""
        ...

    def progress(self, done: int, total: int | None) -> None:
        """Report how many bytes of the current step are done, and of how many if that is known."""
        ...
