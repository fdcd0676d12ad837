"""docs/several-models.md and the README's example: what they name exists, and their configurations are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llama_gguf.api_errors import ERROR_CODES
from llama_gguf.gateway.api.cors import Cors
from llama_gguf.gateway.api.routes import ROUTES
from llama_gguf.gateway.telemetry.metric_definitions import SERIES
from llama_gguf.settings.loading.load import loads
from llama_gguf.settings.schema_tree import settings_schema
from llama_gguf.states import Residency

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/several-models.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"`([^`\n]+)`", GUIDE))


def examples() -> list[str]:
    """Return the configurations of both pages in which there are several models."""
    pages = GUIDE, (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "models:" in block
    ]


@pytest.mark.parametrize("text", examples(), ids=["guide", "readme"])
def test_the_examples_are_valid_without_a_warning(text: str) -> None:
    loaded = loads(text, Path("config.yaml"), {})
    assert loaded.problems == ()
    assert len(loaded.settings.models) == 3


def test_the_settings_it_explains_are_there() -> None:
    schema, named = settings_schema(), 0
    for word in WORDS:
        if re.fullmatch(r"(engine|memory|limits|gateway)(\.\w+)+", word):
            assert schema.at(word.split(".")) is not None, word
            named += 1
    for name in ("load", "unload_after_seconds", "required", "variants", "defaults", "strip", "max_reasoning_tokens"):
        assert any(word == name or word.startswith(f"{name}:") for word in WORDS), name
        assert schema.at(("models", "chat", name)) is not None
    assert named >= 6


def test_its_routes_errors_headers_states_and_series_are_there() -> None:
    routes = {(route.method, route.template) for route in ROUTES}
    named = {tuple(word.split()) for word in WORDS if re.match(r"(GET|POST) ", word)}
    assert named <= routes
    assert {path for _, path in named} >= {"/models/load", "/models/unload", "/models/pin", "/models/residency"}
    codes = {code.code for code in ERROR_CODES}
    assert {"queue_full", "queue_timeout", "model_failed", "model_not_found"} <= codes
    for status, words in re.findall(r"\b([45]\d\d) ((?:`\w+`(?: and )?)+)", GUIDE):
        for word in re.findall(r"\w+", words.replace(" and ", " ")):
            assert (word, int(status)) in {(code.code, code.status) for code in ERROR_CODES}
    assert set(Residency) <= WORDS
    exposed = str(Cors(["*"], 60).headers(None))
    for header in ("X-Changed-Parameters", "X-Queue-Position", "Retry-After"):
        assert header in WORDS
        assert header in exposed
    labels = {series.name: series.labels for series in SERIES}
    for name in re.findall(r"llama_gguf_\w+", GUIDE):
        assert "model" in labels[name], name
