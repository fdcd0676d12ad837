"""The legacy variables: each is mapped to a setting, or retired with a word on what does its work."""

from __future__ import annotations

import pytest

from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES
from llama_gguf.settings.schema_tree import settings_schema
from support.configuration import from_environment


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
