"""The table of architectures is that of the pinned llama.cpp: names in GGUF files that it has a class for."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path

from image.engine import build, compiler

from llama_gguf.models.gguf import hyperparameters
from llama_gguf.models.gguf.known_architectures import KNOWN

_NAME = re.compile(r'\{ (LLM_ARCH_\w+), +"([^"]+)" *\}')
_CASE = re.compile(r"case (LLM_ARCH_\w+):")


def sources(tmp_path: Path) -> dict[str, str]:
    folder = build.default_cache(os.environ).parent / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"llama-arch.cpp", "llama-model.cpp", "llama-hparams.h"}
    found = {}
    with tarfile.open(compiler.fetch_source(folder, os.environ, tmp_path / "download.log")) as packed:
        for member in packed:
            path = Path(member.name)
            if path.name in wanted and path.parent.name == "src":
                file = packed.extractfile(member)
                assert file is not None
                found[path.name] = file.read().decode()
    assert set(found) == wanted
    return found


def test_the_engine_loads_what_the_table_says_and_nothing_else(tmp_path: Path) -> None:
    texts = sources(tmp_path)
    names = dict(_NAME.findall(texts["llama-arch.cpp"]))
    factory = texts["llama-model.cpp"].partition("llama_model_mapping")[2].partition("\n}\n")[0]
    loaded = {names[case] for case in _CASE.findall(factory)} - {"clip"}
    assert len(loaded) > 100
    assert loaded == KNOWN
    header = texts["llama-hparams.h"]
    for name, ours in (("LAYERS", hyperparameters.MAX_LAYERS), ("EXPERTS", hyperparameters.MAX_EXPERTS)):
        found = re.search(rf"#define LLAMA_MAX_{name} +(\d+)", header)
        assert found is not None
        assert int(found[1]) == ours
