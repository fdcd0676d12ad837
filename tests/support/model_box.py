"""What tests of fetching share: locations in a temporary folder, a reporter that remembers, bytes that are a GGUF."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from llama_gguf.settings import Locations, Settings, locate, parse
from llama_gguf.states import Phase


@dataclass
class Remembering:
    """A reporter that keeps what it was told."""

    phases: list[tuple[Phase, str]] = field(default_factory=list)
    steps: list[tuple[int, int | None]] = field(default_factory=list)

    def phase(self, phase: Phase, detail: str) -> None:
        """Keep the phase."""
        self.phases.append((phase, detail))

    def progress(self, done: int, total: int | None) -> None:
        """Keep the progress."""
        self.steps.append((done, total))

    def kinds(self) -> list[Phase]:
        """Return the phases without details."""
        return [phase for phase, _ in self.phases]


def settings_for(root: Path, model: dict[str, object], **sections: object) -> Settings:
    """Return settings whose every path lies below `root`."""
    paths = {"data_dir": str(root), "run_dir": str(root / "run")}
    return parse({"model": model, "paths": paths, **sections})


def locations_for(root: Path) -> Locations:
    """Return locations below `root`, with the models directory made."""
    locations = locate(settings_for(root, {"name": "any"}), {})
    locations.models_dir.mkdir(parents=True, exist_ok=True)
    return locations
