"""The settings as a whole: frozen, strict, and valid by default."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from llama_gguf.settings import Settings, parse

MODEL = {"model": {"path": "/m.gguf"}}


def test_settings_are_frozen_and_strict() -> None:
    settings = parse(MODEL)
    with pytest.raises(ValidationError):
        settings.gateway.port = 1  # type: ignore[misc]
    wrongs: list[dict[str, object]] = [
        {"gateway": {"port": "8000"}},
        {"auth": {"enabled": 1}},
        {"engine": {"slots": 2.0}},
        {"nonsense": {}},
    ]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            parse({**MODEL, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"auth": {"keys_file": " "}},
        {"auth": {"keys_file": "/a\nb"}},
        {"auth": {"bootstrap": {"env": "A-B"}}},
        {"auth": {"extra_header": "a b"}},
        {"logging": {"worker_type": ".."}},
        {"logging": {"name": "a/b"}},
        {"health": {"path": "ping"}},
    ],
)
def test_texts_that_would_do_harm_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        parse({**MODEL, **wrong})


def test_importing_settings_loads_neither_yaml_nor_pydantic_settings() -> None:
    """The gateway's start depends on it: programs read the snapshot only."""
    dear = ("yaml", "pydantic_settings", "click", "rich")
    code = f"import sys, llama_gguf.settings; print([m for m in {dear} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_defaults_alone_are_valid() -> None:
    assert Settings.model_validate_json(parse(MODEL).model_dump_json()) == parse(MODEL)
