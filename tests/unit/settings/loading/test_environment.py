"""Settings from variables: their own names, the legacy ones, and names that are nearly right."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES
from llama_gguf.settings.loading.load import InvalidConfigError, load, loads
from llama_gguf.settings.schema_tree import env_name, settings_schema
from support.configuration import FILE, MINIMAL, from_environment, told


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


LEAVES = [leaf.path for leaf in settings_schema().leaves()]


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


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("LLAMA_GGUF__GATEWAY__PORT", '"9000"', "gateway.port", 9000),
        ("LLAMA_GGUF__GATEWAY__PORT", "'9000'\r", "gateway.port", 9000),
        ("LLAMA_GGUF__GATEWAY__HOST", '"127.0.0.1"', "gateway.host", "127.0.0.1"),
        ("LLAMA_GGUF__AUTH__ENABLED", '"false"', "auth.enabled", False),
        ("LLAMA_GGUF__MODEL__ALIASES", '\'["a","b"]\'', "model.aliases", ("a", "b")),
        (
            "LLAMA_GGUF__ENGINE__EXTRA_ARGS",
            '"--no-warmup --swa-full"',
            "engine.extra_args",
            ("--no-warmup", "--swa-full"),
        ),
        ("MODEL_PATH", '"/a/b.gguf"', "model.path", "/a/b.gguf"),
    ],
)
def test_quotes_that_an_env_file_left_are_ignored_and_told(name: str, text: str, path: str, value: object) -> None:
    """docker run --env-file passes them on."""
    loaded = loads(MINIMAL, FILE, {name: text})
    found: object = loaded.settings
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    (problem,) = [one for one in loaded.problems if one.code == "quoted-variable"]
    assert (problem.severity, problem.source) == ("warning", f"environment variable {name}")


def test_quotes_within_a_value_are_left_and_blanks_are_not_worth_a_word() -> None:
    env = {
        "LLAMA_GGUF__ENGINE__EXTRA_ARGS": "'--no-warmup' '--swa-full'",
        "LLAMA_GGUF__GATEWAY__PORT": " 9000\r\n",
        "UNKNOWN": '"x"',
    }
    loaded = loads(MINIMAL, FILE, env)
    assert loaded.settings.engine.extra_args == ("--no-warmup", "--swa-full")
    assert loaded.settings.gateway.port == 9000
    assert not loaded.problems


def test_an_env_file_with_export() -> None:
    loaded = loads(MINIMAL, FILE, {"export LLAMA_GGUF__GATEWAY__PORT": "9000"})
    (problem,) = loaded.problems
    assert (problem.code, problem.hint) == ("ignored-variable", "write the env file without `export`")
