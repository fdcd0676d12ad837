"""The names of the series."""

from __future__ import annotations

from llama_gguf.gateway.telemetry.metric_definitions import SERIES


def test_names_follow_the_conventions() -> None:
    assert len({declared.name for declared in SERIES}) == len(SERIES)
    for declared in SERIES:
        assert declared.name.startswith("llama_gguf_")
        assert declared.name.endswith("_total") == (declared.kind == "counter")
        assert declared.help.endswith(".")
        assert bool(declared.buckets) == (declared.kind == "histogram")
        assert list(declared.buckets) == sorted(set(declared.buckets))
