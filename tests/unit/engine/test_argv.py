"""What golden pairs cannot say of argv: arguments that are impossible, and what must never be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.engine.argv import build_argv
from llama_gguf.errors import ConfigError
from llama_gguf.models.model_files import LoraFile, ModelFiles
from llama_gguf.settings import locate
from support.model_box import settings_for


def test_a_scaled_adapter_with_a_colon_in_its_path() -> None:
    settings = settings_for(Path("/x"), {"path": "/m.gguf"})
    locations = locate(settings, {})
    adapters = (LoraFile(Path("/a:b.gguf"), 0.5),)
    with pytest.raises(ConfigError, match="path contains a colon"):
        build_argv(settings, locations, ModelFiles(Path("/m.gguf"), lora=adapters))
    plain = ModelFiles(Path("/m.gguf"), lora=(LoraFile(Path("/a:b.gguf")),))
    assert "/a:b.gguf" in build_argv(settings, locations, plain)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_no_level_logs_prompts(level: str) -> None:
    settings = settings_for(Path("/x"), {"path": "/m.gguf"}, logging={"level": level})
    argv = build_argv(settings, locate(settings, {}), ModelFiles(Path("/m.gguf")))
    assert int(argv[argv.index("--log-verbosity") + 1]) <= 4
    assert not {"-v", "--verbose", "--log-verbose", "--log-prompts-dir"} & set(argv)
