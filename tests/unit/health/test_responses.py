from __future__ import annotations

import json

import pytest

from llama_gguf.health.responses import details, percent, pyworker_line, respond
from llama_gguf.health.state import ModelStatus, Status
from llama_gguf.rundir.notices import Notice
from llama_gguf.settings.platform import Platform
from llama_gguf.states import Phase, ServiceState

STATES = tuple(ServiceState)


def status(state: ServiceState) -> Status:
    ready_once = state in {ServiceState.READY, ServiceState.UNREADY}
    return Status(state, 0.0, Phase.LOADING, "m", "/secret/m.gguf", "because", was_ready=ready_once)


@pytest.mark.parametrize(
    ("path", "platform", "expected"),
    [
        # starting, ready, unready, draining, failed
        ("/ping", "runpod", (204, 200, 503, 503, 500)),
        ("/ping", "plain", (204, 200, 503, 503, 500)),
        ("/ping", "vast", (204, 200, 503, 503, 500)),
        ("/ping", "kubernetes", (503, 200, 503, 503, 500)),
        ("/livez", "kubernetes", (200, 200, 200, 200, 500)),
        ("/readyz", "kubernetes", (503, 200, 503, 503, 500)),
        ("/startupz", "kubernetes", (503, 200, 200, 503, 500)),
        ("/health", "plain", (503, 200, 503, 503, 500)),
        ("/elsewhere", "plain", (404,) * 5),
    ],
)
def test_statuses(path: str, platform: Platform, expected: tuple[int, ...]) -> None:
    assert tuple(respond(path, "/ping", platform, status(state)).status for state in STATES) == expected


@pytest.mark.parametrize("path", ["/ping", "/livez", "/readyz", "/startupz", "/health"])
def test_no_detail_is_told_to_strangers(path: str) -> None:
    assert not any(b"secret" in respond(path, "/ping", "plain", status(state)).body for state in STATES)


def test_once_started_always_started() -> None:
    drained = Status(ServiceState.DRAINING, 0.0, was_ready=True)
    assert respond("/startupz", "/ping", "kubernetes", drained).status == 200


def test_ping_has_no_body() -> None:
    for state in STATES:
        assert respond("/ping", "/ping", "runpod", status(state)).body == b""


def test_the_configured_path_wins() -> None:
    assert respond("/health", "/health", "runpod", status(ServiceState.STARTING)).status == 204
    assert respond("/ping", "/health", "runpod", status(ServiceState.STARTING)).status == 404


def test_a_no_says_why() -> None:
    assert respond("/readyz", "/ping", "plain", status(ServiceState.UNREADY)).body == b"unready: because\n"


def test_details() -> None:
    notices = (Notice("no-chat-template", "it has none", "set one"),)
    found = Status(ServiceState.STARTING, 0.0, Phase.DOWNLOADING, "m", "/m.gguf", "busy", 1, 3, notices=notices)
    assert json.loads(details(found)) == {
        "state": "starting",
        "phase": "downloading",
        "model": "m",
        "reason": "busy",
        "since": "1970-01-01T00:00:00.000Z",
        "progress": {"bytes_done": 1, "bytes_total": 3, "percent": 33.3},
        "was_ready": False,
        "warnings": [{"code": "no-chat-template", "message": "it has none", "hint": "set one"}],
        "cpu_variant": None,
        "models": [],
    }
    assert json.loads(details(status(ServiceState.READY)))["warnings"] == []
    variant = {"name": "zen4", "pinned": False, "rejected": ["sapphirerapids"]}
    assert json.loads(details(Status(ServiceState.READY, 0.0, cpu_variant=variant)))["cpu_variant"] == variant
    assert json.loads(details(status(ServiceState.READY)))["progress"] is None
    several = (ModelStatus("a", Phase.SERVING, True), ModelStatus("b", Phase.FAILED, False, "cannot start"))
    assert json.loads(details(Status(ServiceState.READY, 0.0, models=several)))["models"] == [
        {"name": "a", "phase": "serving", "required": True, "reason": ""},
        {"name": "b", "phase": "failed", "required": False, "reason": "cannot start"},
    ]


@pytest.mark.parametrize(
    ("done", "total", "expected"), [(None, 5, None), (5, None, None), (0, 0, None), (5, 4, 100.0), (1, 4, 25.0)]
)
def test_percent(done: int | None, total: int | None, expected: float | None) -> None:
    assert percent(Status(ServiceState.STARTING, 0.0, bytes_done=done, bytes_total=total)) == expected


def test_vast_lines_come_once_for_each_change() -> None:
    starting, ready, failed = (
        Status(ServiceState.STARTING, 0.0),
        Status(ServiceState.READY, 0.0, was_ready=True),
        status(ServiceState.FAILED),
    )
    assert pyworker_line(starting, ready) == "llama-gguf-on-load: model ready"
    assert pyworker_line(ready, ready) is None
    assert pyworker_line(status(ServiceState.UNREADY), ready) is None  # ready again is no second load
    assert pyworker_line(starting, failed) == "llama-gguf-on-error: because: /secret/m.gguf"
    assert pyworker_line(starting, Status(ServiceState.FAILED, 0.0, reason="because")) == "llama-gguf-on-error: because"
    assert pyworker_line(failed, failed) is None
