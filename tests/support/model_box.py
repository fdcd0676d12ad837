"""What tests of fetching share: locations in a temporary folder, a reporter that records, bytes of a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.model_files import ModelFiles
from llama_gguf.models.resolve import resolve
from llama_gguf.settings import Locations, Settings, locate, parse
from llama_gguf.states import Phase
from support.silent import Silent


@dataclass
class Remembering:
    """A reporter that records its calls."""

    phases: list[tuple[Phase, str]] = field(default_factory=list)
    steps: list[tuple[int, int | None]] = field(default_factory=list)

    def phase(self, phase: Phase, detail: str) -> None:
        """Record the phase."""
        self.phases.append((phase, detail))

    def progress(self, done: int, total: int | None) -> None:
        """Record the progress."""
        self.steps.append((done, total))

    def kinds(self) -> list[Phase]:
        """Return the phases without details."""
        return [phase for phase, _ in self.phases]


def settings_for(root: Path, model: dict[str, object], **sections: object) -> Settings:
    """Return settings whose every path lies below `root`."""
    paths = {"data_dir": str(root), "run_dir": str(root / "run")}
    return parse({"model": model, "paths": paths, **sections})


def locations_for(root: Path) -> Locations:
    """Return locations below `root`, with the models directory created."""
    locations = locate(settings_for(root, {"name": "any"}), {})
    locations.models_dir.mkdir(parents=True, exist_ok=True)
    return locations


def run(root: Path, model: dict[str, object]) -> ModelFiles:
    """Return the files that `model` resolves to."""
    return resolve(settings_for(root, model).model, locations_for(root), {}, Silent())


def failure(root: Path, model: dict[str, object]) -> ModelError:
    """Return the error with which `model` is refused for good."""
    with pytest.raises(ModelError) as caught:
        run(root, model)
    assert caught.value.exit_code == ExitCode.CONFIG
    return caught.value
