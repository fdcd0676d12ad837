from __future__ import annotations

import pytest

from llama_gguf.settings.platform import detect_platform, resolve_platform


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "plain"),
        ({"RUNPOD_POD_ID": "x"}, "runpod"),
        ({"RUNPOD_ENDPOINT_ID": "x", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "runpod"),
        ({"RUNPOD_POD_ID": ""}, "plain"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"CONTAINER_ID": "7", "VAST_TCP_PORT_8000": "40123"}, "vast"),
        ({"CONTAINER_ID": "7", "CONTAINER_API_KEY": "k"}, "vast"),
        ({"CONTAINER_ID": "7"}, "plain"),
        ({"VAST_TCP_PORT_8000": "40123"}, "plain"),
    ],
)
def test_detect(env: dict[str, str], expected: str) -> None:
    assert detect_platform(env) == expected
    assert resolve_platform("auto", env) == expected


def test_what_is_configured_wins() -> None:
    assert resolve_platform("kubernetes", {"RUNPOD_POD_ID": "x"}) == "kubernetes"
