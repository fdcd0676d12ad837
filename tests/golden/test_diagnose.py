"""Golden samples: golden/diagnose/NAME.log (an engine's end) -> NAME.json. `GOLDEN_UPDATE=1 pytest …` rewrites them.

Most logs were made by the real llama-server; those of CUDA follow its source.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from llama_gguf.engine.diagnose import diagnose

CASES = sorted((Path(__file__).parent / "diagnose").glob("*.json"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_diagnosis(case: Path) -> None:
    expected = json.loads(case.read_text())
    lines = case.with_suffix(".log").read_text().splitlines()
    found = diagnose(lines, expected["exit_code"], expected["signal"])
    given = {key: expected[key] for key in ("exit_code", "signal")}
    if os.environ.get("GOLDEN_UPDATE"):
        case.write_text(json.dumps(given | asdict(found), indent=1) + "\n")
        expected = json.loads(case.read_text())
    assert given | asdict(found) == expected


def test_there_are_cases() -> None:
    assert len(CASES) >= 45
