"""load: precedence, origins, the old system's names, and what is told about each."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES
from llama_gguf.settings.loading.load import MAX_FILE_BYTES, InvalidConfigError, Loaded, load, loads
from llama_gguf.settings.schema_tree import env_name, settings_schema

FILE = Path("config.yaml")
MINIMAL = "model: {path: /m.gguf}\n"


def told(text: str, env: dict[str, str] | None = None, sets: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """Return (severity, code, path) of every problem, whether loading fails or not."""
    try:
        problems = loads(text, FILE, env or {}, sets).problems
    except InvalidConfigError as error:
        problems = error.problems
    return [(problem.severity, problem.code, problem.path) for problem in problems]


def from_environment(env: dict[str, str], sets: tuple[str, ...] = ()) -> Loaded:
    """Load with no file at all, as a template launch does."""
    return load(None, {"MODEL_NAME": "m.gguf", **env}, sets)


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


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("MODEL_PATH", "/a/b.gguf", "model.path", "/a/b.gguf"),
        ("MODELS_DIR", "/models", "paths.models_dir", "/models"),
        ("DATA_DIR", "/data", "paths.data_dir", "/data"),
        ("LOG_DIR", "/logs", "paths.logs_dir", "/logs"),
        ("LOG_NAME", "llama", "logging.name", "llama"),
        ("LOG_FORMAT", "JSON", "logging.format", "json"),
        ("WORKER_TYPE", "chat", "logging.worker_type", "chat"),
        ("INSTANCE_ID", "box-1", "logging.instance_id", "box-1"),
        ("NGL", "99", "engine.gpu_layers", "all"),
        ("NGL", "-1", "engine.gpu_layers", "all"),
        ("NGL", "20", "engine.gpu_layers", 20),
        ("NGL", "0", "engine.gpu_layers", 0),
        ("CTX", "8192", "engine.context_per_slot", 8192),
        ("THREADS", "6", "engine.threads", 6),
        ("EXTRA_ARGS", "--no-warmup --override-kv 'a=int:1'", "engine.extra_args", ("--no-warmup", "--override-kv", "a=int:1")),  # noqa: E501
        ("MAX_CONCURRENT_REQUESTS", "8", "engine.slots", 8),
        ("MAX_QUEUE_SIZE", "0", "limits.queue.max_size", 0),
        ("HOST", "127.0.0.1", "gateway.host", "127.0.0.1"),
        ("PORT", "9000", "gateway.port", 9000),
        ("PORT_HEALTH", "9001", "health.port", 9001),
        ("AUTH_ENABLED", "yes", "auth.enabled", True),
        ("AUTH_ENABLED", "off", "auth.enabled", False),
        ("AUTH_KEYS_FILE", "/data/api_keys.txt", "auth.keys_file", "/data/api_keys.txt"),
        ("MAX_REQUESTS_PER_MINUTE", "50", "limits.requests_per_minute", 50),
        ("MAX_REQUESTS_PER_MINUTE", "0", "limits.requests_per_minute", None),
        ("METRICS_AUTH_ENABLED", "1", "metrics.require_key", True),
        ("CORS_ORIGINS", "https://a.example, https://b.example", "gateway.cors.allow_origins", ("https://a.example", "https://b.example")),
        ("MAX_REQUEST_BODY_SIZE", "2048", "gateway.max_body_bytes", 2048),
        ("MAX_HEADERS", "32", "gateway.max_headers", 32),
        ("MAX_HEADER_LINE_SIZE", "4096", "gateway.max_header_line_bytes", 4096),
        ("MAX_REQUEST_LINE_SIZE", "4096", "gateway.max_request_line_bytes", 4096),
        ("REQUEST_TIMEOUT", "60", "gateway.timeouts.total_seconds", 60.0),
        ("BACKEND_CONNECT_TIMEOUT", "2.5", "gateway.timeouts.connect_seconds", 2.5),
        ("CLIENT_HEADER_TIMEOUT", "5", "gateway.timeouts.header_seconds", 5.0),
        ("HEALTH_TIMEOUT", "1", "health.check_timeout_seconds", 1.0),
        ("DEBUG_SHELL", "true", "supervisor.hold_seconds", 86_400.0),
        ("DEBUG_SHELL", "false", "supervisor.hold_seconds", 0.0),
    ],
)  # fmt: skip
def test_old_name_still_works(name: str, text: str, path: str, value: object) -> None:
    loaded = load(None, {"MODEL_NAME": "m.gguf", name: text})
    found: object = loaded.settings
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert loaded.origin(path).detail == name
    assert not [problem for problem in loaded.problems if problem.severity == "error"]


def test_every_old_name_is_either_mapped_or_retired() -> None:
    wanted = {
        "MODEL_NAME",
        "MODEL_PATH",
        "MODELS_DIR",
        "DATA_DIR",
        "LOG_DIR",
        "LOG_NAME",
        "LOG_FORMAT",
        "WORKER_TYPE",
        "NGL",
        "CTX",
        "THREADS",
        "EXTRA_ARGS",
        "HOST",
        "PORT",
        "PORT_HEALTH",
        "PORT_BACKEND",
        "BACKEND_PORT",
        "BACKEND_HOST",
        "BACKEND_API_KEY",
        "AUTH_ENABLED",
        "AUTH_KEYS_FILE",
        "MAX_REQUESTS_PER_MINUTE",
        "METRICS_AUTH_ENABLED",
        "CORS_ORIGINS",
        "MAX_CONCURRENT_REQUESTS",
        "MAX_QUEUE_SIZE",
        "MAX_REQUEST_BODY_SIZE",
        "MAX_HEADERS",
        "MAX_HEADER_LINE_SIZE",
        "MAX_REQUEST_LINE_SIZE",
        "REQUEST_TIMEOUT",
        "BACKEND_CONNECT_TIMEOUT",
        "CLIENT_HEADER_TIMEOUT",
        "HEALTH_TIMEOUT",
        "INSTANCE_ID",
        "DEBUG_SHELL",
    }
    assert {old.name for old in LEGACY_VARIABLES} == wanted
    for old in LEGACY_VARIABLES:
        assert old.note or old.setting
        assert not old.setting or settings_schema().at(old.setting) is not None


@pytest.mark.parametrize("name", [old.name for old in LEGACY_VARIABLES if not old.setting])
def test_retired_name_is_accepted_and_says_what_does_its_work(name: str) -> None:
    loaded = from_environment({name: "hunter2"})
    (problem,) = loaded.problems
    assert (problem.code, problem.severity) == ("retired", "warning")
    assert problem.hint
    assert "hunter2" not in problem.message + problem.hint


def test_old_context_keeps_the_memory_it_used_to_take() -> None:
    """CTX was a total with one slot by default; four slots of it would take four times the memory."""
    assert from_environment({"CTX": "8192"}).settings.engine.slots == 1
    assert from_environment({"CTX": "8192", "MAX_CONCURRENT_REQUESTS": "2"}).settings.engine.slots == 2
    assert from_environment({"CTX": "8192", "LLAMA_GGUF__ENGINE__SLOTS": "3"}).settings.engine.slots == 3
    assert from_environment({"CTX": "8192"}, ("engine.slots=5",)).settings.engine.slots == 5
    assert loads(f"{MINIMAL}engine: {{slots: 6}}\n", FILE, {"CTX": "8192"}).settings.engine.slots == 6


def test_old_arguments_that_are_settings_by_now_are_taken_as_settings() -> None:
    args = "-fa -ctk q8_0 --cache-type-v=q8_0 -c 16384 --parallel 4 --no-warmup --metrics -t 3"
    loaded = from_environment({"EXTRA_ARGS": args})
    engine = loaded.settings.engine
    assert (engine.flash_attention, engine.cache_type_k, engine.cache_type_v) == ("on", "q8_0", "q8_0")
    assert (engine.slots, engine.context_per_slot) == (4, 4096), "their -c was a total"
    assert engine.threads == 3
    assert engine.extra_args == ("--no-warmup",)
    assert [problem.code for problem in loaded.problems] == ["moved"]


def test_model_path_wins_over_model_name_as_it_did() -> None:
    model = load(None, {"MODEL_NAME": "a.gguf", "MODEL_PATH": "/b.gguf"}).settings.model
    assert (model.path, model.name) == ("/b.gguf", None)


def test_a_source_above_replaces_the_source_below() -> None:
    text = f"model:\n  url: https://example.com/a.gguf\n  token_env: TOKEN\n  sha256: {'a' * 64}\n  aliases: [chat]\n"
    loaded = loads(text, FILE, {"MODEL_NAME": "b.gguf"})
    model = loaded.settings.model
    assert (model.name, model.url, model.token_env, model.sha256) == ("b.gguf", None, None, None)
    assert model.aliases == ("chat",), "what the operator calls it stays"
    assert [problem.code for problem in loaded.problems] == ["dropped-checksum"]
    assert loaded.problems[0].line == 4


def test_another_revision_refines_the_repository_below() -> None:
    text = "model: {hf: {repo: a/b, file: c.gguf}, token_env: TOKEN}\n"
    model = loads(text, FILE, {"LLAMA_GGUF__MODEL__HF__REVISION": "v2"}).settings.model
    assert model.hf is not None
    assert (model.hf.repo, model.hf.revision, model.token_env) == ("a/b", "v2", "TOKEN")


def test_companions_of_a_replaced_model_are_told() -> None:
    text = "model: {path: /a.gguf, mmproj: {path: /p.gguf}}\n"
    assert told(text, {"MODEL_PATH": "/b.gguf"}) == [("warning", "kept-companion", "model.mmproj")]
    cleared = {"MODEL_PATH": "/b.gguf", "LLAMA_GGUF__MODEL__MMPROJ": "null"}
    assert loads(text, FILE, cleared).settings.model.mmproj is None


def test_runpod_serverless_decides_ports_and_path() -> None:
    env = {"RUNPOD_ENDPOINT_ID": "e", "PORT": "80", "PORT_HEALTH": "81", "HEALTH_CHECK_PATH": "/healthz"}
    settings = loads(MINIMAL, FILE, env).settings
    assert (settings.gateway.port, settings.health.port, settings.health.path) == (80, 81, "/healthz")
    assert loads(MINIMAL, FILE, {"HEALTH_CHECK_PATH": "/x"}).settings.health.path == "/ping", "only on RunPod"


def test_runpod_serverless_without_ports_is_warned_about() -> None:
    problems = loads(MINIMAL, FILE, {"RUNPOD_ENDPOINT_ID": "e"}).problems
    assert [problem.code for problem in problems] == ["platform-ports", "platform-ports"]
    assert "port 80, " in problems[0].message


@pytest.mark.parametrize("value", ["", "   "])
def test_empty_variable_counts_as_not_set(value: str) -> None:
    env = {"MODEL_PATH": value, "CTX": value, "LLAMA_GGUF__GATEWAY__PORT": value, "LLAMA_GGUF__NONSENSE": value}
    assert told(MINIMAL, env) == []


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("GPU_LAYERS", "NGL"),
        ("CONTEXT_SIZE", "CTX"),
        ("MODEL", "MODEL_PATH"),
        ("MODEL_NAMES", "MODEL_NAME"),
        ("AUTH_ENABELD", "AUTH_ENABLED"),
        ("LLAMA_GGUF_GATEWAY_PORT", "LLAMA_GGUF__GATEWAY__PORT"),
        ("LLAMA_GGUF_GATEWAY__PORT", "LLAMA_GGUF__GATEWAY__PORT"),
    ],
)
def test_near_miss_is_a_warning_with_the_right_name(name: str, right: str) -> None:
    (problem,) = loads(MINIMAL, FILE, {name: "1"}).problems
    assert (problem.code, problem.severity) == ("ignored-variable", "warning")
    assert problem.hint == f'did you mean "{right}"?'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/bin"),
        ("HOSTNAME", "box"),
        ("LOGNAME", "ada"),
        ("LLAMA_GGUF_SERVICE_HOST", "10.0.0.1"),
        ("LLAMA_GGUF_PORT", "tcp://10.0.0.1:8000"),
        ("GATEWAY_PORT", "tcp://10.0.0.1:8000"),
        ("LLAMA_GGUF_TEST_ENGINE", "/x"),
        ("model", "x"),
    ],
)
def test_names_of_others_are_left_alone(name: str, value: str) -> None:
    assert told(MINIMAL, {name: value}) == []


def test_llama_servers_own_variables_are_not_read() -> None:
    assert told(MINIMAL, {"LLAMA_ARG_CTX_SIZE": "9"}) == [("warning", "ignored-variable", "")]


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


def test_every_setting_can_be_set_by_its_variable() -> None:
    """The name that the reference prints for a setting is read, for every setting."""
    sources = ("path", "name", "url", "hf", "mmproj", "draft", "lora")
    for leaf in settings_schema().leaves():
        if leaf.path[0] == "model" and leaf.path[1] in sources:
            continue
        name = env_name(leaf.path)
        text = leaf.default if isinstance(leaf.default, str) else json.dumps(leaf.default)
        codes = [code for _, code, _ in told(MINIMAL, {name: text})]
        assert codes in ([], ["no-effect"]), (name, text, codes)
        with pytest.raises(InvalidConfigError) as caught:
            loads(MINIMAL, FILE, {f"{name}X": "1"})
        assert caught.value.problems[0].hint == f'did you mean "{name}"?'


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
        ("error", "wrong-type", "engine.slots"),
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


def test_value_where_a_group_belongs_is_told_even_if_a_variable_sets_below_it() -> None:
    assert told(f"{MINIMAL}gateway: 8000\n", {"PORT": "9000"}) == [("error", "wrong-type", "gateway")]


def test_variable_fills_a_group_that_the_file_set_to_null() -> None:
    text = f"{MINIMAL}gateway: null\n"
    assert loads(text, FILE, {"LLAMA_GGUF__GATEWAY__PORT": "9000"}).settings.gateway.port == 9000


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


@given(
    st.dictionaries(
        st.sampled_from([old.name for old in LEGACY_VARIABLES] + [env_name(path) for path in LEAVES]),
        st.text(max_size=20) | st.sampled_from(["[", "{", '{"a": 1}', "[1]", "null", "-1", "1e999", "--x 'y"]),
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_no_environment_makes_it_raise_anything_else(env: dict[str, str]) -> None:
    with contextlib.suppress(InvalidConfigError):
        load(None, env)
