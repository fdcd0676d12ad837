"""engine_args: the table is about arguments that llama-server really has, and forgets none that matter."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from llama_gguf.engine.argv import build_argv
from llama_gguf.models.model_files import LoraFile, ModelFiles
from llama_gguf.settings import locate, parse
from llama_gguf.settings.checks.reserved_args import RULES, hoist, is_argument, reserved, rules_by_name, spelled
from llama_gguf.settings.schema_tree import settings_schema

DANGEROUS = re.compile(
    r"tool|agent|mcp|media-path|slot-save|^--slots$|^--props$|api-key|^--host$|^--port$|prompts-dir|^--rpc$|^--path$"
)


@pytest.fixture(scope="module")
def help_names(engine_binary: Path) -> set[str]:
    """Return every spelling in `llama-server --help`."""
    found = subprocess.run([engine_binary, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    heads = [line for line in found.splitlines() if re.match(r"-{1,2}[A-Za-z]", line)]
    return {name for head in heads for name in re.findall(r"(?<![\w<-])(--?[A-Za-z][\w.-]*)", head[:200])}


@pytest.mark.engine
def test_every_name_is_an_argument_of_llama_server(help_names: set[str]) -> None:
    unknown = {name for name in rules_by_name() if name not in help_names}
    assert not unknown, "these are no arguments of this llama-server: correct or remove them"


@pytest.mark.engine
def test_every_dangerous_argument_of_llama_server_has_a_rule(help_names: set[str]) -> None:
    dangerous = {name for name in help_names if DANGEROUS.search(name)}
    assert len(dangerous) >= 15
    assert dangerous <= set(rules_by_name())


def test_each_rule_points_at_a_setting_that_exists() -> None:
    for rule in RULES:
        if rule.kind in ("setting", "newer_setting"):
            assert settings_schema().at(tuple(rule.instead.split("."))) is not None, rule.instead


def test_each_spelling_stands_once() -> None:
    names = [name for rule in RULES for name in rule.names]
    assert len(names) == len(set(names))


def test_spellings() -> None:
    assert spelled("--ctx_size=4096") == ("--ctx-size", "4096")
    assert spelled("-c") == ("-c", None)
    assert spelled("--api_key=a=b") == ("--api-key", "a=b")


def test_is_argument() -> None:
    assert all(is_argument(item) for item in ("-c", "--x", "-ngl"))
    assert not any(is_argument(item) for item in ("-1", "-.5", "-", "x", ""))


def test_whatever_the_appliance_passes_itself_has_a_rule(tmp_path: Path) -> None:
    """An argument given twice is decided by the later one, so an operator's would win in silence."""
    engine: dict[str, object] = {"gpu_layers": 0, "threads": 2, "sleep_idle_seconds": 5}
    text: dict[str, object] = {"model": {"path": "/m.gguf", "lora": [{"path": "/a", "scale": 0.5}]}, "engine": engine}
    settings = parse(text)
    locations = locate(settings, {"HOME": str(tmp_path)})
    model = tmp_path / "m.gguf"
    files = ModelFiles(model, mmproj=model, draft=model, lora=(LoraFile(model, 0.5),), chat_template=model)
    passed = set[str]()
    for task in ("generate", "embed", "rerank"):
        for form in ("text", "json"):
            changed = parse({**text, "engine": {**engine, "task": task}, "logging": {"format": form}})
            passed |= {item for item in build_argv(changed, locations, files) if is_argument(item)}
    harmless = {"--no-mmproj-offload", "--spec-draft-ngl", "--spec-type"}
    assert passed - harmless <= set(rules_by_name())


def test_refused_finds_names_and_not_values() -> None:
    found = [(index, name) for index, name, _ in reserved(["--override-kv", "x", "--host", "--slots", "port"])]
    assert found == [(2, "--host"), (3, "--slots")]


def test_an_argument_that_came_before_its_setting_is_left_where_it_is() -> None:
    assert hoist(["--cache-reuse", "256", "--cpu-moe"]) == ({}, ["--cache-reuse", "256", "--cpu-moe"])


def test_hoist_takes_plain_settings_and_leaves_the_rest() -> None:
    settings, rest = hoist(["-fa", "off", "--fit", "off", "-a", "x,y", "--host", "h", "-m", "/x", "--jinja", "-t"])
    assert settings == {
        ("engine", "flash_attention"): "off",
        ("engine", "fit"): "false",
        ("model", "aliases"): "x,y",
    }
    assert rest == ["--host", "h", "-m", "/x", "--jinja", "-t"]
