"""What the engine knows, and what is said of the rest, however odd the name."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.models.gguf.header import Header, Value, read_header
from llama_gguf.models.gguf.known_architectures import CACHE_UNKNOWN, KNOWN, problem_of


def header(name: Value) -> Header:
    return Header(Path("/m"), 0, 3, {"general.architecture": name}, (), 0)


def test_what_the_engine_knows(tiny_model: Path, tiny_rerank_model: Path, starter_model: Path) -> None:
    for path in (tiny_model, tiny_rerank_model, starter_model):
        assert problem_of(read_header(path)) == ""
    assert all(problem_of(header(name)) == "" for name in KNOWN)
    assert CACHE_UNKNOWN < KNOWN


@pytest.mark.parametrize("name", ["llama5", "LLAMA", "gptj", "(unknown)", "clip", "", 7, True, "x" * 10_000_000, "\0"])
def test_what_it_does_not(name: Value) -> None:
    said = problem_of(header(name))
    assert said
    assert len(said) < 250
    assert said.isprintable()


def test_the_nearest_is_told() -> None:
    assert "(the nearest it knows is qwen3moe)" in problem_of(header("qwen3-moe"))
