"""The diagrams of docs/architecture.md are what the code says today, and are told from it rightly."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from docs.diagrams import import_graph, packages, request_way, run_files
from docs.diagrams.__main__ import PAGE, diagrams_in, drawn

ON_THE_PAGE = diagrams_in(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", ON_THE_PAGE)
def test_diagram_is_fresh(module: str) -> None:
    assert ON_THE_PAGE[module] == drawn(module), "run `make gen`"


def test_every_module_that_draws_is_on_the_page_and_nothing_is_drawn_by_hand() -> None:
    folder = Path(packages.__file__).parent
    drawing = {path.stem for path in folder.glob("*.py") if "\ndef draw(" in path.read_text(encoding="utf-8")}
    assert set(ON_THE_PAGE) == drawing
    assert PAGE.read_text(encoding="utf-8").count("```mermaid") == len(drawing)


def test_arrows_that_follow_from_others_are_left_out() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": set[str](), "d": set[str]()}
    assert import_graph.reduced(graph) == {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}


def test_imports_are_found_by_either_form() -> None:
    found = import_graph.graph()
    assert "llama_gguf.gateway.upstream.client" in found["llama_gguf.gateway.app"]  # a name out of a module
    assert "llama_gguf.runtime.prepare_rundir" in found["llama_gguf.runtime.launch"]  # a module out of a package
    assert "llama_gguf.runtime.programs" in found["llama_gguf.runtime.launch"]  # out of the same folder


SAMPLE = """
import os
from llama_gguf.rundir import engine_variant

def act(run, snapshot):
    run.draining.touch()
    run.ready.unlink()
    run.failure.read_text()
    os.open(run.lock, os.O_CREAT)
    engine_variant.write(1, snapshot.locations.run.engine_variant)
    engine_variant.read(run.snapshot)
    Keeper(path=run.crashes)
    for file in (run.engine_key, run.engine_state):
        file.unlink()
    other.ready.touch()

class Keeper:
    def __init__(self, path):
        self.path = path
    def keep(self):
        self.path.write_text("")
"""


def test_who_writes_a_file_and_who_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {**import_graph.sources(), "llama_gguf.sample": ast.parse(SAMPLE)}
    monkeypatch.setattr(run_files, "sources", lambda: sources)
    monkeypatch.setattr(import_graph, "sources", lambda: sources)
    assert sorted(run_files.uses_in("llama_gguf.sample")) == [
        ("crashes", True),
        ("draining", True),
        ("engine_variant", True),
        ("failure", False),
        ("lock", True),
        ("snapshot", False),
    ]


def test_a_request_is_followed_to_the_engine_and_back() -> None:
    lines = request_way.draw().splitlines()
    for asked in ("pipeline", "inference", "ratelimit", "scheduling", "relay", "upstream"):
        assert any("-->|" in line and line.endswith(f"| {asked}") for line in lines), asked
    for answered in ("relay", "http1", "telemetry"):
        assert any("-.->|" in line and line.endswith(f"| {answered}") for line in lines), answered
