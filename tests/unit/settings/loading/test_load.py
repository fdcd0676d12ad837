"""load: precedence, origins, and what is told about each."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gguf.settings.loading.load import MAX_FILE_BYTES, InvalidConfigError, load, loads
from llama_gguf.settings.schema_tree import settings_schema
from support.configuration import FILE, MINIMAL, from_environment, told


def test_precedence_rises_from_default_to_flag() -> None:
    env: dict[str, str] = {}
    text = MINIMAL
    assert loads(text, FILE, env).settings.gateway.port == 8000
    text += "gateway: {port: 8100}\n"
    assert loads(text, FILE, env).settings.gateway.port == 8100
    env["PORT"] = "8200"
    assert loads(text, FILE, env).settings.gateway.port == 8200
    env["LLAMA_GGUF__GATEWAY__PORT"] = "8300"
    assert loads(text, FILE, env).settings.gateway.port == 8300
    assert loads(text, FILE, env, ["gateway.port=8400"]).settings.gateway.port == 8400


def test_every_value_knows_where_it_came_from() -> None:
    text = f"{MINIMAL}gateway:\n  host: 127.0.0.1\n  port: 8100\n"
    env = {"CTX": "1024", "LLAMA_GGUF__ENGINE__SLOTS": "3", "RUNPOD_ENDPOINT_ID": "e", "PORT_HEALTH": "8001"}
    loaded = loads(text, FILE, {**env, "PORT": "80"}, ["logging.level=debug"])
    assert str(loaded.origin("gateway.host")) == "config.yaml:3"
    assert str(loaded.origin("engine.context_per_slot")) == "environment variable CTX"
    assert str(loaded.origin("engine.slots")) == "environment variable LLAMA_GGUF__ENGINE__SLOTS"
    assert loaded.origin("gateway.port").kind == "platform"
    assert str(loaded.origin("logging.level")) == "--set logging.level"
    assert str(loaded.origin("gateway.max_headers")) == "default"


def test_environment_alone_is_enough() -> None:
    loaded = from_environment({"LLAMA_GGUF__GATEWAY__PORT": "9000"})
    assert loaded.settings.model.name == "m.gguf"
    assert loaded.settings.gateway.port == 9000
    assert loaded.file is None
    assert loaded.text == ""


def test_nothing_at_all_says_how_to_name_a_model() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(None, {})
    (problem,) = caught.value.problems
    assert problem.code == "no-model"
    assert "MODEL_PATH" in problem.hint
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("override", ["gateway.port", "=8000", "", "gateway.prot=1", "gateway.port=x", "model=5"])
def test_wrong_flag_is_an_error_with_the_flag_as_place(override: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        loads(MINIMAL, FILE, {}, [override])
    assert all(problem.source.startswith("--set") for problem in caught.value.problems)


def test_flag_takes_lists_groups_and_null() -> None:
    sets = ["model.aliases=a,b", 'gateway.cors={"allow_origins": ["*"]}', "limits.requests_per_minute=null"]
    settings = loads(MINIMAL, FILE, {}, sets).settings
    assert settings.model.aliases == ("a", "b")
    assert settings.gateway.cors.allow_origins == ("*",)
    assert settings.limits.requests_per_minute is None


def test_problems_are_in_the_order_of_the_file() -> None:
    text = "model: {path: /m.gguf}\nhealth: {port: x}\ngateway: {port: y}\nengine: {slots: 0}\n"
    with pytest.raises(InvalidConfigError) as caught:
        loads(text, FILE, {"LLAMA_GGUF__NONSENSE": "1"})
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 0]
    assert "4 errors" in caught.value.message


def test_wrong_values_do_not_hide_what_is_wrong_between_others() -> None:
    text = "model: {path: /m.gguf, hf: {repo: x}}\nengine: {ubatch_size: 4096, slots: no}\n"
    assert told(text) == [
        ("error", "missing", "model.hf.file"),
        ("error", "bad-value", "model.hf.repo"),
        ("error", "ubatch-over-batch", "engine.ubatch_size"),
        ("error", "bad-value", "engine.slots"),
    ]


def test_unreadable_files(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    expected = {
        tmp_path / "none.yaml": "file-missing",
        tmp_path: "file-unreadable",
        big: "file-too-large",
        loop: "file-unreadable",
    }
    for path, code in expected.items():
        with pytest.raises(InvalidConfigError) as caught:
            load(path, {"MODEL_NAME": "m.gguf"})
        assert [problem.code for problem in caught.value.problems] == [code]
        assert caught.value.problems[0].source == str(path)


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(MINIMAL, encoding="utf-8-sig")
    assert load(file, {}).settings.model.path == "/m.gguf"


def test_later_problems_get_their_places() -> None:
    from llama_gguf.errors import Problem

    text = "model: {path: /m.gguf}\nengine:\n  extra_args: [--no-warmup]\n"
    loaded = loads(text, FILE, {"PORT": "9000"})
    found = loaded.with_origins(
        [
            Problem("a", "m", "engine.extra_args[0]"),
            Problem("b", "m", "gateway.port"),
            Problem("c", "m", "limits.store"),
            Problem("d", "m", "x", source="elsewhere"),
        ]
    )
    assert [(problem.source, problem.line) for problem in found] == [
        ("config.yaml", 3),
        ("environment variable PORT", 0),
        ("", 0),
        ("elsewhere", 0),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
LEAVES = [leaf.path for leaf in settings_schema().leaves()]


@given(st.lists(st.tuples(st.sampled_from(LEAVES), st.integers(0, 3), JSON), max_size=5))
@settings(max_examples=200, deadline=None)
def test_no_value_anywhere_makes_it_raise_anything_else(edits: list[tuple[tuple[str, ...], int, object]]) -> None:
    tree: dict[str, Any] = {"model": {"path": "/m.gguf"}}
    for path, depth, value in edits:
        node = tree
        for part in path[:depth]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                break
            node = child
        node[path[min(depth, len(path) - 1)]] = value
    with contextlib.suppress(InvalidConfigError):
        loads(json.dumps(tree), FILE, {})
