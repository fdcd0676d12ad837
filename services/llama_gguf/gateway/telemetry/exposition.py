"""Serializes metrics as Prometheus' text format, OpenMetrics or JSON, with the engine's own series merged in. Pure.

Only those lines of the engine's text are passed on that are well-formed and start with `llamacpp:`: one invalid line
(it sometimes prints `-nan`) would make Prometheus reject the whole scrape. prometheus_client's own parser and writer
cannot be used, because they turn `llamacpp:x` into `llamacpp_x`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as _generate_openmetrics

CONTENT_TYPE_JSON = "application/json"
_TEXT = "text/plain"
_OPENMETRICS = "application/openmetrics-text"
_Q = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")

_END = b"# EOF\n"
_COMMENT = re.compile(rb"# (HELP|TYPE) (llamacpp:\w+) ([^\r\n]+)")
_SAMPLE = re.compile(
    rb"(llamacpp:\w+)(\{(?:\w+=\"[^\"\\\r\n]*\",?)*\})? ([-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)"
)
_LABEL = re.compile(r"(\w+)=\"([^\"]*)\"")

generate_openmetrics: Callable[[CollectorRegistry], bytes] = _generate_openmetrics


def render(registry: CollectorRegistry, accept: str, engine_text: bytes | None) -> tuple[bytes, str]:
    """Return body and content type of the response for an Accept header."""
    lines = engine_lines(engine_text or b"")
    chosen = _preferred(accept)
    if chosen == _OPENMETRICS:
        ours = generate_openmetrics(registry).removesuffix(_END)
        return ours + _joined(map(_to_openmetrics, lines)) + _END, CONTENT_TYPE_OPENMETRICS
    if chosen == _TEXT:
        return generate_latest(registry) + _joined(lines), CONTENT_TYPE_PLAIN_0_0_4
    body = {**_as_json(registry.collect()), **_engine_as_json(lines)}
    return orjson.dumps(body), CONTENT_TYPE_JSON


def _preferred(accept: str) -> str:
    """Return the media type that an Accept header weighs highest: text if several are equal, or none is acceptable."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        media_type, *parameters = (text.strip() for text in part.split(";"))
        weights[media_type] = next((_weight(text) for text in parameters if text.startswith("q=")), 1.0)

    def weight(media_type: str) -> float:
        wildcards = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")  # the most specific one counts
        return next((weights[name] for name in wildcards if name in weights), 0.0)

    return max((_TEXT, _OPENMETRICS, CONTENT_TYPE_JSON), key=weight)  # the first of equals


def _weight(parameter: str) -> float:
    found = _Q.fullmatch(parameter)
    return float(found[1]) if found is not None else 1.0


def engine_lines(text: bytes) -> list[bytes]:
    """Return the well-formed lines of the engine's own series."""
    return [line for line in text.splitlines() if _SAMPLE.fullmatch(line) or _COMMENT.fullmatch(line)]


def with_models(texts: Mapping[str, bytes]) -> bytes:
    """Return the series of several engines as one text: each family once, its samples with the label `model`."""
    comments: dict[bytes, dict[bytes, bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for model, text in texts.items():
        for line in engine_lines(text):
            if comment := _COMMENT.fullmatch(line):
                what, name, _ = comment.groups()
                comments.setdefault(name, {}).setdefault(what, line)
            elif sample := _SAMPLE.fullmatch(line):
                name, labels, value = sample.groups()
                inner = (labels or b"{}")[1:-1].rstrip(b",")
                label = b'model="%b"' % model.encode("utf-8", "replace").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
                joined = b",".join(filter(None, (label, inner)))
                samples.setdefault(name, []).append(b"%b{%b} %b" % (name, joined, value))
    return _joined(line for name, of in samples.items() for line in (*comments.get(name, {}).values(), *of))


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _to_openmetrics(line: bytes) -> bytes:
    """Remove `_total` from a counter's family name; a counter without `_total` gets the type `unknown`."""
    comment = _COMMENT.fullmatch(line)
    if comment is None:
        return line
    what, name, text = comment.groups()
    if what == b"TYPE" and text == b"counter" and not name.endswith(b"_total"):
        text = b"unknown"
    return b"# %s %s %s" % (what, name.removesuffix(b"_total"), text)


def _as_json(families: Iterable[Metric]) -> dict[str, object]:
    """Return {series: {type, help, samples: [{labels, value}]}}; a histogram's samples have count, sum and buckets."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: {
            "type": family.type,
            "help": family.documentation,
            "samples": _histogram_samples(family) if family.type == "histogram" else _samples(family),
        }
        for family in families
    }


def _samples(family: Metric) -> list[dict[str, object]]:
    return [{"labels": sample.labels, "value": sample.value} for sample in family.samples]


def _histogram_samples(family: Metric) -> list[dict[str, object]]:
    found: dict[tuple[tuple[str, str], ...], dict[str, object]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        entry = found.setdefault(tuple(labels.items()), {"labels": labels, "buckets": {}})
        buckets = entry["buckets"]
        if sample.name.endswith("_bucket") and isinstance(buckets, dict):
            buckets[sample.labels["le"]] = sample.value
        else:
            entry[sample.name.rpartition("_")[2]] = sample.value  # count, sum
    return list(found.values())


def _engine_as_json(lines: list[bytes]) -> dict[str, object]:
    found: dict[str, dict[str, object]] = {}
    for line in lines:
        if comment := _COMMENT.fullmatch(line):
            what, name, text = (part.decode() for part in comment.groups())
            found.setdefault(name, {"type": "unknown", "help": "", "samples": []})[what.lower()] = text
        elif sample := _SAMPLE.fullmatch(line):
            name, labels, value = (part.decode() if part else "" for part in sample.groups())
            samples = found.setdefault(name, {"type": "unknown", "help": "", "samples": []})["samples"]
            assert isinstance(samples, list)  # noqa: S101 - created as one above
            samples.append({"labels": dict(_LABEL.findall(labels)), "value": float(value)})
    return dict(found)
