"""Golden pairs: golden/supervisord/NAME.json (settings) -> NAME.ini. `GOLDEN_UPDATE=1 pytest …` rewrites them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llama_gguf.runtime.programs import build_programs
from llama_gguf.runtime.supervisord import render_ini
from llama_gguf.settings import parse

CASES = sorted((Path(__file__).parent / "supervisord").glob("*.json"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_ini(case: Path) -> None:
    settings = parse(json.loads(case.read_text()))
    variables = ("PATH", "HF_TOKEN", "HF_HOME", "HTTPS_PROXY") if case.stem == "everything" else ()
    programs = build_programs(settings, "python3")
    text = render_ini(programs, settings.logging, variables=variables, as_root=case.stem == "root")
    expected = case.with_suffix(".ini")
    if os.environ.get("GOLDEN_UPDATE"):
        expected.write_text(text)
    assert text == expected.read_text()


def test_there_are_cases() -> None:
    assert len(CASES) >= 3
