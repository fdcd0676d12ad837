"""A models directory with one model in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.model_box import locations_for
from support.tiny_model import write_tiny_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return the models directory below `tmp_path`."""
    directory = locations_for(tmp_path).models_dir
    write_tiny_model(directory / "Tiny-Q8_0.gguf")
    return directory
