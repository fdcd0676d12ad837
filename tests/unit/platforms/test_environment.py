"""Settings -> variables and YAML -> the same settings: what a container reads is what was configured."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.platforms.environment import config_yaml, document, patched, variable_text, variables
from llama_gguf.settings import Settings, parse
from llama_gguf.settings.loading.load import load, loads
from support.rendering import HF, ROOT, settings

EVERYTHING: dict[str, Any] = {
    "paths": {"data_dir": "/d", "models_dir": "/m", "logs_dir": "/l", "run_dir": "/r"},
    "model": {
        "url": "https://example.com/a%20b.gguf?x=1&y=2",
        "sha256": "0" * 64,
        "token_env": "TOKEN",
        "aliases": ["a b", 'with "quotes"', "ümlaut"],
        "mmproj": {"hf": {"repo": "a/b", "file": "c.gguf", "revision": "v1"}},
        "draft": {"name": "draft.gguf"},
        "lora": [{"path": "/x.gguf", "scale": -0.25}, {"url": "https://example.com/y.gguf"}],
        "chat_template": "/t.jinja",
    },
    "engine": {
        "context_per_slot": 0,
        "slots": 3,
        "gpu_layers": 33,
        "flash_attention": "on",
        "sleep_idle_seconds": 12.5,
        "extra_args": ["--a", "b c", "it's", "d\\e", "$f"],
        "fit": False,
    },
    "gateway": {
        "host": "::",
        "port": 9000,
        "timeouts": {"connect_seconds": 0.25, "total_seconds": 60},
        "cors": {"allow_origins": ["https://a.example", "https://b.example"]},
        "routes": ["chat"],
    },
    "auth": {"enabled": False, "bootstrap": {"env": "KEY", "scopes": ["admin", "metrics"]}, "extra_header": "X-Key"},
    "limits": {"requests_per_minute": None, "tokens_per_minute": 5, "queue": {"fairness": "fifo"}},
    "health": {"path": "/healthz", "platform": "plain"},
    "metrics": {"key_label": True},
    "logging": {"format": "json", "instance_id": "box 1"},
    "supervisor": {"stop_seconds": 3},
}
SEVERAL: dict[str, Any] = {
    "models": {
        "writer": {
            "path": "/w.gguf",
            "engine": {"slots": 4, "sleep_idle_seconds": None, "rope": {"scaling": "auto"}, "extra_args": []},
            "defaults": {"temperature": 1.0, "chat_template_kwargs": {"Thinking": False, "none": None, "empty": {}}},
            "variants": {"Writer no__2": {"defaults": {"stop": ["a"]}, "lora": []}, "w.2": {"strip": ["top_k"]}},
        },
        "qwen3-8b": {**HF, "load": "on_demand", "unload_after_seconds": 5, "engine": {"fit": True}},
        "a_2": {**HF, "required": False, "engine": {"rope": {"scaling": "yarn", "scale": 4}, "sleep_idle_seconds": 9}},
        "a": {"name": "a.gguf", "engine": {"slots": 2}},
        "b__c": {"name": "b.gguf", "lora": [{"path": "/l.gguf"}]},
        "d_": {"name": "d.gguf", "aliases": ["D"]},
    },
    "engine": {
        "slots": 8,
        "sleep_idle_seconds": 60,
        "fit": False,
        "rope": {"scaling": "linear", "scale": 2},
        "extra_args": ["--no-warmup"],
    },
    "memory": {"host_mib": 8192},
}
"""Of each model something that differs from the common settings, some back to the default; names of every kind."""
CONFIGS = [ROOT / "config/config.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]


def read_back(given_settings: Settings) -> Settings:
    return loads("", None, variables(given_settings)).settings


def test_every_kind_of_value_comes_back_from_variables() -> None:
    everything = parse(EVERYTHING)
    assert read_back(everything) == everything


def test_every_kind_of_value_comes_back_from_yaml() -> None:
    everything = parse(EVERYTHING)
    assert loads(config_yaml(everything), Path("config.yaml"), {}).settings == everything


def test_several_models_come_back_in_their_order_each_with_its_own_engine() -> None:
    several = parse(SEVERAL)
    for back in (
        read_back(several),
        loads(config_yaml(several), Path("config.yaml"), {}).settings,
        patched(several, {}),
    ):
        assert back == several
        assert list(back.models) == list(several.models)
        assert back.models["writer"].engine.slots == 4  # the default, which `engine` says otherwise


def test_what_a_model_shares_with_the_others_is_written_once() -> None:
    written: Any = document(parse(SEVERAL))["models"]
    assert written["qwen3-8b"]["engine"] == {"fit": True}
    assert written["a"] == {"name": "a.gguf", "engine": {"slots": 2}}
    assert "engine" not in written["d_"]


def test_no_variable_has_a_name_that_is_lost_on_the_way() -> None:
    """A shell drops variables with a hyphen; two underscores are the delimiter; names are read in small letters."""
    written = variables(parse(SEVERAL))
    assert all(re.fullmatch("[A-Z][A-Z0-9_]*", name) for name in written)
    assert {name.split("__")[2] for name in written if name.startswith("LLAMA_GGUF__MODELS__")} == {
        "WRITER",
        "A",
        "A_2",
    }
    order = json.loads(written["LLAMA_GGUF__MODELS"])
    assert list(order) == list(SEVERAL["models"])
    assert (order["writer"], order["b__c"]["name"]) == ({}, "b.gguf")
    assert json.loads(written["LLAMA_GGUF__MODELS__WRITER__VARIANTS"])["w.2"] == {"strip": ["top_k"]}


def test_the_order_is_not_written_where_it_is_that_of_the_names() -> None:
    several = parse({"models": {"a2": {"name": "2"}, "a": {"name": "1"}}})  # as LLAMA_GGUF__MODELS__A2 and …__A__
    assert set(variables(several)) == {"LLAMA_GGUF__MODELS__A2__NAME", "LLAMA_GGUF__MODELS__A__NAME"}
    assert list(read_back(several).models) == ["a2", "a"]


MODEL_NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,5}", fullmatch=True)


@given(st.lists(MODEL_NAMES, min_size=1, max_size=4, unique=True))
def test_any_names_of_models_come_back_in_their_order(names: list[str]) -> None:
    several = parse({"models": {name: {"name": f"{name}.gguf"} for name in names}})
    back = read_back(several)
    assert back == several
    assert list(back.models) == names


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configurations_of_the_repository_come_back(file: Path) -> None:
    loaded = load(file, {}).settings
    assert read_back(loaded) == loaded
    assert loads(config_yaml(loaded), Path("config.yaml"), {}).settings == loaded


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters=","), min_size=1)


@given(st.lists(WORDS.filter(str.strip), max_size=4, unique=True))
def test_any_text_in_a_list_comes_back(words: list[str]) -> None:
    chosen = settings(model={**HF, "aliases": words})
    assert parse(document(chosen)) == chosen
    assert loads(config_yaml(chosen), Path("c"), {}).settings.model.aliases == tuple(words)
    assert read_back(chosen).model.aliases == tuple(words)


def test_only_what_differs_is_written() -> None:
    assert set(variables(settings())) == {"LLAMA_GGUF__MODEL__HF__REPO", "LLAMA_GGUF__MODEL__HF__FILE"}
    assert list(yaml.safe_load(config_yaml(settings()))) == ["model"]


def test_without_and_only_narrow_the_choice() -> None:
    chosen = settings(gateway={"port": 9000}, health={"port": 9001})
    assert "LLAMA_GGUF__GATEWAY__PORT" not in variables(chosen, without=frozenset({"gateway.port"}))
    assert variables(chosen, only=frozenset({"health.port"})) == {"LLAMA_GGUF__HEALTH__PORT": "9001"}


def test_patched_changes_only_what_it_names_and_validates() -> None:
    base = settings(gateway={"port": 9000})
    changed = patched(base, {"paths.data_dir": "/data", "auth.bootstrap.env": "KEY"})
    assert (changed.paths.data_dir, changed.auth.bootstrap.env, changed.gateway.port) == ("/data", "KEY", 9000)
    assert base.paths.data_dir == "auto"
    with pytest.raises(ValueError, match="port"):
        patched(base, {"gateway.port": 70_000})


@pytest.mark.parametrize(
    ("value", "text"), [("a b", "a b"), (True, "true"), (None, "null"), (3, "3"), (["a"], '["a"]'), (0.5, "0.5")]
)
def test_text_of_a_variable(value: object, text: str) -> None:
    assert variable_text(value) == text


def test_whole_numbers_are_written_without_a_point() -> None:
    written = variables(settings(gateway={"drain_seconds": 90.0, "sse_keepalive_seconds": 0.5}))
    assert written["LLAMA_GGUF__GATEWAY__DRAIN_SECONDS"] == "90"
    assert math.isclose(float(written["LLAMA_GGUF__GATEWAY__SSE_KEEPALIVE_SECONDS"]), 0.5)
