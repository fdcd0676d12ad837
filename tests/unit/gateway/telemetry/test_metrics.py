"""Numbers in, series out: every series of the catalogue once, in each format."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as _parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from llama_gguf.gateway.telemetry import metric_definitions
from llama_gguf.gateway.telemetry.metric_definitions import PROCESS_SERIES, SERIES
from llama_gguf.gateway.telemetry.metrics import Metrics, ModelProbes
from llama_gguf.states import EngineState, Residency

parse_openmetrics: Callable[[str], Iterator[Metric]] = _parse_openmetrics
OF_M = "{'model': 'm'}"
TEXT, OPENMETRICS = "text/plain", "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"


PROBES = ModelProbes(
    queue=lambda: (2, 5, 4),
    engine=lambda: EngineState.READY,
    cpu_variant=lambda: ("zen4", 2),
    planned=lambda: (7, 9),
    load_seconds=lambda: 1.5,
)


def metrics(*, key_label: bool = False) -> Metrics:
    return Metrics(version="1.2.3", engine_version="b9", instance_id="box-1", worker_type="coder", key_label=key_label)


def busy(*, key_label: bool = False) -> Metrics:
    """Return metrics in which every series has a sample."""
    found = metrics(key_label=key_label)
    finish(found, key_id="alice")
    finish(found, key_id="bob", status=500, outcome="engine_error")
    found.cancelled("/v1/chat/completions", "m", "waiting")
    found.queue_rejected("m", "queue")
    found.limited("tokens", "alice")
    found.limit_store(up=False)
    found.limit_store_failed()
    found.engine_restarted("m")
    found.model_loaded("m", Residency.LOADED)
    found.keys_reloaded(ok=True)
    found.keys_reloaded(ok=False)
    found.watch_model("m", PROBES)
    found.watch_requests(lambda: 3)
    found.watch_usage(lambda: 7)
    return found


def finish(found: Metrics, *, key_id: str, status: int = 200, outcome: str = "ok") -> None:
    found.ended(
        "/v1/chat/completions",
        status,
        outcome,
        key_id,
        "m",
        seconds=[2.5],
        queued_seconds=[0.02],
        first_token_seconds=[0.3],
        inter_token_seconds=[(0.02, 10)],
        prompt_tokens=100,
        cached_tokens=40,
        completion_tokens=11,
        tokens_per_second=[48.0],
    )


def samples(text: str) -> dict[str, float]:
    """Return {series{labels}: value} of a text exposition, without the worker type."""
    found = {}
    for family in parse_text(text):
        for sample in family.samples:
            labels = {name: value for name, value in sorted(sample.labels.items()) if name != "worker_type"}
            found[sample.name + (str(labels) if labels else "")] = sample.value
    return found


def families(body: bytes) -> dict[str, Metric]:
    return {family.name: family for family in parse_text(body.decode())}


def test_every_series_is_there_once_with_its_help() -> None:
    body, content_type = busy().render(TEXT)
    assert content_type.startswith("text/plain")
    lines = body.decode().splitlines()
    for declared in SERIES:
        assert lines.count(f"# TYPE {declared.name} {declared.kind}") == 1
        assert lines.count(f"# HELP {declared.name} {declared.help}") == 1
        assert any(line.startswith(declared.name) and 'worker_type="coder"' in line for line in lines), declared.name
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert names == {declared.name for declared in SERIES} | set(PROCESS_SERIES)


def test_values() -> None:
    found = samples(busy().render(TEXT)[0].decode())
    chat = "{'model': 'm', 'route': '/v1/chat/completions'}"
    expected = {
        "llama_gguf_requests_in_flight": 3,
        "llama_gguf_requests_total{'model': 'm', 'outcome': 'ok', 'route': '/v1/chat/completions', 'status': '200'}": 1,
        "llama_gguf_requests_total{'model': 'm', 'outcome': 'engine_error', 'route': '/v1/chat/completions', "
        "'status': '500'}": 1,
        f"llama_gguf_prompt_tokens_total{chat}": 200,
        f"llama_gguf_cached_prompt_tokens_total{chat}": 80,
        f"llama_gguf_completion_tokens_total{chat}": 22,
        "llama_gguf_cancelled_requests_total{'model': 'm', 'phase': 'waiting', 'route': '/v1/chat/completions'}": 1,
        f"llama_gguf_queue_depth{OF_M}": 5,
        f"llama_gguf_slots_busy{OF_M}": 2,
        f"llama_gguf_slots{OF_M}": 4,
        "llama_gguf_queue_rejections_total{'model': 'm', 'reason': 'queue'}": 1,
        "llama_gguf_limited_requests_total{'limit': 'tokens'}": 1,
        "llama_gguf_limit_store_up": 0,
        "llama_gguf_limit_store_failures_total": 1,
        "llama_gguf_engine_state{'model': 'm', 'state': 'ready'}": 1,
        "llama_gguf_engine_state{'model': 'm', 'state': 'loading'}": 0,
        f"llama_gguf_engine_restarts_total{OF_M}": 1,
        "llama_gguf_engine_cpu_variant{'model': 'm', 'variant': 'zen4'}": 1,
        f"llama_gguf_engine_cpu_variants_rejected{OF_M}": 2,
        "llama_gguf_key_reloads_total{'result': 'ok'}": 1,
        "llama_gguf_key_reloads_total{'result': 'failed'}": 1,
        "llama_gguf_usage_write_failures_total": 7,
        "llama_gguf_build_info{'engine': 'b9', 'instance_id': 'box-1', 'version': '1.2.3'}": 1,
        f"llama_gguf_inter_token_seconds_count{chat}": 20,  # each token but the first of its request
        f"llama_gguf_inter_token_seconds_sum{chat}": pytest.approx(0.4),
        f"llama_gguf_request_duration_seconds_sum{chat}": 5.0,
        f"llama_gguf_queue_wait_seconds_count{OF_M}": 2,
        "llama_gguf_model_loads_total{'model': 'm', 'result': 'loaded'}": 1,
        f"llama_gguf_model_load_seconds{OF_M}": 1.5,
        "llama_gguf_model_planned_bytes{'memory': 'device', 'model': 'm'}": 7,
        "llama_gguf_model_planned_bytes{'memory': 'host', 'model': 'm'}": 9,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_buckets_are_cumulative_and_their_bounds_belong_to_them() -> None:
    found = metrics()
    for seconds in (0.05, 0.050001, 9999.0):
        found.ended("/x", 200, "ok", "", seconds=[seconds])
    buckets = {
        sample.labels["le"]: sample.value
        for sample in families(found.render(TEXT)[0])["llama_gguf_request_duration_seconds"].samples
        if "le" in sample.labels
    }
    assert buckets["0.05"] == 1
    assert buckets["0.1"] == 2
    assert buckets["1800.0"] == 2
    assert buckets["+Inf"] == 3


def test_many_at_once_are_counted_as_one_by_one() -> None:
    rng = random.Random(3)
    bounds = metric_definitions.DURATION.buckets
    seconds = [*bounds, *(rng.expovariate(1.0) for _ in range(500)), 0.0, 1e6]
    rng.shuffle(seconds)
    together, apart = metrics(), metrics()
    together.ended("/x", 200, "ok", "", seconds=seconds, first_token_seconds=seconds[:99])
    for index, value in enumerate(seconds):
        apart.ended("/x", 200, "ok", "", seconds=[value], first_token_seconds=[value] if index < 99 else None)
    ours, theirs = (
        {name: value for name, value in samples(one.render(TEXT)[0].decode()).items() if "llama_gguf_" in name}
        for one in (together, apart)
    )
    assert len(ours) > 30
    assert ours == pytest.approx(theirs)


def test_keys_are_told_apart_only_where_asked() -> None:
    assert 'key="' not in busy().render(TEXT)[0].decode()
    found = samples(busy(key_label=True).render(TEXT)[0].decode())
    assert found["llama_gguf_prompt_tokens_total{'key': 'bob', 'model': 'm', 'route': '/v1/chat/completions'}"] == 100
    assert found["llama_gguf_limited_requests_total{'key': 'alice', 'limit': 'tokens'}"] == 1
    assert "llama_gguf_requests_in_flight" in found


def test_paths_that_are_no_routes_make_one_series() -> None:
    found = metrics()
    for _ in range(3):
        found.ended("", 404, "rejected", "", seconds=[0.0])
    found.cancelled("", "", "waiting")
    assert (
        samples(found.render(TEXT)[0].decode())[
            "llama_gguf_requests_total{'model': '', 'outcome': 'rejected', 'route': 'other', 'status': '404'}"
        ]
        == 3
    )


def test_a_fresh_gateway_has_valid_metrics_and_counters_at_nought() -> None:
    fresh = metrics()
    fresh.watch_model("m", dataclasses.replace(PROBES, cpu_variant=lambda: ("", 0)))
    found = samples(fresh.render(TEXT)[0].decode())
    assert found[f"llama_gguf_engine_restarts_total{OF_M}"] == 0
    assert found[f"llama_gguf_queue_wait_seconds_count{OF_M}"] == 0
    assert found[f"llama_gguf_engine_cpu_variants_rejected{OF_M}"] == 0
    assert not any(name.startswith("llama_gguf_engine_cpu_variant{") for name in found)  # llama-server's own choice
    assert sum(found[f"llama_gguf_engine_state{{'model': 'm', 'state': '{state}'}}"] for state in EngineState) == 1


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (TEXT, "text/plain"),
        (OPENMETRICS, "application/openmetrics-text"),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "text/plain"),
        ("*/*", "text/plain"),
        ("application/json", "application/json"),
        ("", "text/plain"),
    ],
)
def test_the_format_follows_accept(accept: str, kind: str) -> None:
    assert busy().render(accept)[1].startswith(kind)


def test_openmetrics_is_valid() -> None:
    body, _ = busy(key_label=True).render(OPENMETRICS)
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert {declared.name.removesuffix("_total") for declared in SERIES} <= names


def test_json() -> None:
    answer: dict[str, Any] = orjson.loads(busy().render("application/json")[0])
    assert {declared.name for declared in SERIES} <= set(answer)
    requests = answer["llama_gguf_requests_total"]
    assert requests["type"] == "counter"
    assert {sample["labels"]["status"]: sample["value"] for sample in requests["samples"]} == {"200": 1, "500": 1}
    (wait,) = answer["llama_gguf_queue_wait_seconds"]["samples"]
    assert wait["count"] == 2
    assert wait["sum"] == pytest.approx(0.04)
    assert wait["buckets"]["0.05"] == 2


def test_two_gateways_in_one_process_do_not_share_numbers() -> None:
    one, other = metrics(), metrics()
    finish(one, key_id="alice")
    assert "llama_gguf_requests_total" in one.render(TEXT)[0].decode()
    assert not any(name.startswith("llama_gguf_requests_total") for name in samples(other.render(TEXT)[0].decode()))
