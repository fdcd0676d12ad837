"""The engine's own series beside ours, whatever the engine prints."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as _parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from llama_gguf.gateway.telemetry.exposition import engine_lines, render
from llama_gguf.gateway.telemetry.metric_definitions import ENGINE_SERIES

parse_openmetrics: Callable[[str], Iterator[Metric]] = _parse_openmetrics
ENGINE = b"""# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 9
# HELP llamacpp:n_tokens_max Largest observed sequence length
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 28
# TYPE llamacpp:spec_total counter
llamacpp:spec_total{position="0"} 1.5e+06
llamacpp:spec_total{position="1"} 2
"""


class _Ours:
    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("ours_total", "Ours.", value=1)


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(_Ours())
    return made


def test_text_is_passed_on_byte_for_byte() -> None:
    body, _ = render(registry(), "text/plain", ENGINE)
    assert body.endswith(ENGINE)
    assert {family.name for family in parse_text(body.decode())} >= {"ours", "llamacpp:prompt_tokens"}


def test_openmetrics_is_made_of_it() -> None:
    body, _ = render(registry(), "application/openmetrics-text", ENGINE)
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert families["llamacpp:prompt_tokens"].type == "counter"
    assert families["llamacpp:n_tokens_max"].type == "unknown"  # it calls itself a counter, and has no _total
    assert [sample.value for sample in families["llamacpp:spec"].samples] == [1.5e6, 2]
    assert body.count(b"# EOF") == 1


def test_json_holds_it_too() -> None:
    answer: dict[str, Any] = orjson.loads(render(registry(), "application/json", ENGINE)[0])
    assert answer["llamacpp:n_tokens_max"] == {
        "type": "counter",
        "help": "Largest observed sequence length",
        "samples": [{"labels": {}, "value": 28.0}],
    }
    assert answer["llamacpp:spec_total"]["samples"][1] == {"labels": {"position": "1"}, "value": 2.0}
    assert answer["ours_total"]["samples"] == [{"labels": {}, "value": 1.0}]


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/*", "text/plain"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/plain"),  # browsers
        ("image/png", "text/plain"),
        ("text/plain;q=0, */*", "application/openmetrics-text"),
        (PROMETHEUS, "application/openmetrics-text"),
        ("application/openmetrics-text;q=0.3, text/plain;q=0.5", "text/plain"),
        ("application/openmetrics-text, text/plain", "text/plain"),
        ("APPLICATION/OPENMETRICS-TEXT; version=1.0.0", "application/openmetrics-text"),
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("application/json;q=0.1, text/plain;q=0.2", "text/plain"),
        ("application/json;q=nonsense", "application/json"),
        (";;,q=;,,", "text/plain"),
    ],
)
def test_the_format_that_accept_weighs_highest(accept: str, media_type: str) -> None:
    assert render(registry(), accept, ENGINE)[1].startswith(media_type)


@pytest.mark.parametrize(
    "line",
    [
        b"llamacpp:prompt_tokens_seconds -nan",
        b"llamacpp:x nan",
        b"llamacpp:x inf",
        b"llamacpp:x",
        b"llamacpp:x 1 2 3",
        b'llamacpp:x{a="b} 1',
        b"llama_gguf_requests_total 999",
        b"# TYPE llama_gguf_requests_total gauge",
        b"# EOF",
        b"<html>502</html>",
        b"\xff\xfe",
    ],
)
def test_what_is_not_well_formed_or_not_the_engines_is_left_out(line: bytes) -> None:
    assert engine_lines(line) == []
    for accept in ("text/plain", "application/openmetrics-text", "application/json"):
        body, _ = render(registry(), accept, ENGINE + line + b"\n")
        assert body == render(registry(), accept, ENGINE)[0]


def test_an_engine_that_was_not_asked_leaves_ours() -> None:
    assert render(registry(), "text/plain", None)[0] == render(registry(), "text/plain", b"")[0]


@pytest.mark.engine
def test_the_real_engine_prints_the_series_we_know(engine_binary: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The list that dashboards are checked against is the engine's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments: list[str | Path] = [engine_binary, "-m", tiny_model, "--port", str(port), "--metrics", "-np", "1"]
    with (tmp_path / "log").open("wb") as log:
        engine = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        text = _metrics_of(port, engine)
    finally:
        engine.terminate()
        engine.wait(60)
    printed = {line.split()[2].decode() for line in text.splitlines() if line.startswith(b"# TYPE ")}
    assert printed == set(ENGINE_SERIES)
    assert b"".join(line + b"\n" for line in engine_lines(text)) == text  # nothing of it is thrown away
    for accept in ("text/plain", "application/openmetrics-text"):
        body = render(registry(), accept, text)[0].decode()
        list(parse_text(body) if accept == "text/plain" else parse_openmetrics(body))


def _metrics_of(port: int, engine: subprocess.Popen[bytes]) -> bytes:
    deadline = time.monotonic() + 60
    while _get(port, "/health")[0] != 200:
        assert engine.poll() is None, "the engine died"
        assert time.monotonic() < deadline, "the engine does not answer"
        time.sleep(0.05)
    status, body = _get(port, "/metrics")
    assert status == 200
    return body


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()
