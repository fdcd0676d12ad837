"""Golden pairs: golden/argv/NAME.yaml (settings, files, host) -> NAME.txt. `GOLDEN_UPDATE=1 pytest …` rewrites them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from llama_gguf.engine.argv import Host, build_argv
from llama_gguf.models.model_files import LoraFile, ModelFiles
from llama_gguf.settings import locate, parse

CASES = sorted((Path(__file__).parent / "argv").glob("*.yaml"))


def files_of(value: dict[str, Any]) -> ModelFiles:
    lora = tuple(LoraFile(Path(item["path"]), item.get("scale", 1.0)) for item in value.pop("lora", ()))
    kind = value.pop("draft_sets_spec_type", False)
    paths = {name: Path(path) for name, path in value.items()}
    return ModelFiles(**paths, lora=lora, draft_sets_spec_type=kind)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_argv(case: Path) -> None:
    given = yaml.safe_load(case.read_text())
    settings = parse(given["settings"])
    host = Host(**given["host"]) if "host" in given else None
    argv = build_argv(settings, locate(settings, {}), files_of(given["files"]), host)
    text = "\n".join(argv) + "\n"
    expected = case.with_suffix(".txt")
    if os.environ.get("GOLDEN_UPDATE"):
        expected.write_text(text)
    assert text == expected.read_text()


def test_there_are_cases() -> None:
    assert len(CASES) >= 22
