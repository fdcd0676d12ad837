"""The gateway's metrics, for Prometheus and as JSON.

Owns the values: plain dicts and lists, which a request updates in about two microseconds; prometheus_client's objects
are created from them on each scrape. No locks: everything is called from the event loop's thread.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from llama_gguf.gateway.ratelimit.quota import LimitName
from llama_gguf.gateway.scheduling.admission import Rejection
from llama_gguf.gateway.telemetry import metric_definitions
from llama_gguf.gateway.telemetry.exposition import render
from llama_gguf.gateway.telemetry.metric_definitions import Series
from llama_gguf.states import EngineState, Residency

OTHER_ROUTE = "other"
"""Label of requests without a route, so that a client cannot create series by requesting unknown paths."""

Labels = tuple[str, ...]
_FEW = 16


class _Histogram:
    """Counts by bucket, not yet cumulative, and the sum of the values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: metric_definitions.Buckets) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add_all(self, values: list[float]) -> None:
        """Add values; if there are many, by one pass over the bounds instead of one search each."""
        self.total += sum(values)
        if len(values) < _FEW:
            for value in values:
                self.counts[bisect_left(self.bounds, value)] += 1
            return
        values = sorted(values)
        passed = 0
        for index, bound in enumerate(self.bounds):
            up_to = bisect_right(values, bound, passed)
            self.counts[index] += up_to - passed
            passed = up_to
        self.counts[-1] += len(values) - passed

    def add_many(self, value: float, times: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class _RouteCell:
    """The histograms of one route, found by one lookup."""

    __slots__ = ("duration", "first_token", "inter_token", "speed")

    def __init__(self) -> None:
        self.duration = _Histogram(metric_definitions.DURATION.buckets)
        self.first_token = _Histogram(metric_definitions.FIRST_TOKEN.buckets)
        self.inter_token = _Histogram(metric_definitions.INTER_TOKEN.buckets)
        self.speed = _Histogram(metric_definitions.SPEED.buckets)


class _TokenCell:
    """The token counters of one route, and of one key with `key_label`."""

    __slots__ = ("cached", "completion", "prompt")

    def __init__(self) -> None:
        self.prompt = 0
        self.cached = 0
        self.completion = 0


@dataclass(frozen=True, slots=True)
class ModelProbes:
    """Where the current values of one model come from, at each scrape."""

    queue: Callable[[], tuple[int, int, int]]  # slots in use, requests that wait, slots
    engine: Callable[[], EngineState]
    cpu_variant: Callable[[], tuple[str, int]]  # "" for its own choice, and the number of crashed ones
    planned: Callable[[], tuple[int, int]]  # bytes on GPUs and in main memory
    load_seconds: Callable[[], float]


def _values_of(declared: Series, probes: ModelProbes) -> list[tuple[Labels, float]]:
    """Return the values of a gauge for one model, with the labels after the model's."""
    active, waiting, capacity = probes.queue()
    match declared:
        case metric_definitions.ENGINE_STATE:
            now = probes.engine()
            return [((state,), float(state is now)) for state in EngineState]
        case metric_definitions.ENGINE_CPU_VARIANT:
            variant, _ = probes.cpu_variant()
            return [((variant,), 1.0)] if variant else []
        case metric_definitions.ENGINE_CPU_VARIANTS_REJECTED:
            return [((), float(probes.cpu_variant()[1]))]
        case metric_definitions.MODEL_PLANNED_BYTES:
            return [((memory,), float(size)) for memory, size in zip(("device", "host"), probes.planned(), strict=True)]
        case metric_definitions.MODEL_LOAD_SECONDS:
            return [((), probes.load_seconds())]
    plain = {
        metric_definitions.QUEUE_DEPTH: waiting,
        metric_definitions.SLOTS_BUSY: active,
        metric_definitions.SLOTS: capacity,
    }
    return [((), float(plain[declared]))]


class Metrics:
    """The gateway's metrics. `key_label` adds the label `key` to the request, token and limit counters."""

    def __init__(
        self, *, version: str, engine_version: str, instance_id: str, worker_type: str, key_label: bool = False
    ) -> None:
        self._constant = {"worker_type": worker_type}
        self._build: Labels = (version, engine_version, instance_id)
        self._key_label = key_label
        self._requests: dict[tuple[str, str, int, str, str], int] = defaultdict(int)
        self._routes: dict[tuple[str, str], _RouteCell] = defaultdict(_RouteCell)
        self._tokens: dict[tuple[str, str, str], _TokenCell] = defaultdict(_TokenCell)
        self._waits: dict[str, _Histogram] = defaultdict(lambda: _Histogram(metric_definitions.QUEUE_WAIT.buckets))
        self._counters: dict[tuple[Series, Labels], int] = defaultdict(int)
        self._limited: dict[tuple[str, str], int] = defaultdict(int)
        self._models: dict[str, ModelProbes] = {}
        self._store_up = True
        self._in_flight: Callable[[], int] = lambda: 0
        self._usage_failures: Callable[[], int] = lambda: 0
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(self))
        ProcessCollector(registry=self._registry)

    def watch_model(self, model: str, probes: ModelProbes) -> None:
        """Read the values of one model from `probes` on each scrape."""
        self._models[model] = probes

    def watch_requests(self, in_flight: Callable[[], int]) -> None:
        """Read the number of requests in flight from `in_flight` on each scrape."""
        self._in_flight = in_flight

    def watch_usage(self, failures: Callable[[], int]) -> None:
        """Read the number of failed writes of the usage file from `failures` on each scrape."""
        self._usage_failures = failures

    def ended(
        self,
        route: str,
        status: int,
        outcome: str,
        key_id: str,
        model: str = "",
        *,
        seconds: list[float],
        queued_seconds: list[float] | None = None,
        first_token_seconds: list[float] | None = None,
        inter_token_seconds: list[tuple[float, int]] | None = None,
        prompt_tokens: int = 0,
        cached_tokens: int = 0,
        completion_tokens: int = 0,
        tokens_per_second: list[float] | None = None,
    ) -> None:
        """Count completed requests that have the positional arguments in common; `seconds`: the duration of each.

        `route` is a template of the route table, or "" for none; `key_id` and `model` are "" if there is none.
        Tokens are sums over all, the other lists contain the known values; `inter_token_seconds`: values and how often
        each occurred.
        """
        if not route:
            route = OTHER_ROUTE
        key = key_id if self._key_label else ""
        self._requests[route, model, status, outcome, key] += len(seconds)
        cell = self._routes[route, model]
        cell.duration.add_all(seconds)
        if queued_seconds:
            self._waits[model].add_all(queued_seconds)
        if first_token_seconds:
            cell.first_token.add_all(first_token_seconds)
        if prompt_tokens or completion_tokens:
            tokens = self._tokens[route, model, key]
            tokens.prompt += prompt_tokens
            tokens.cached += cached_tokens
            tokens.completion += completion_tokens
        for value, times in inter_token_seconds or ():
            cell.inter_token.add_many(value, times)
        if tokens_per_second:
            cell.speed.add_all(tokens_per_second)

    def mean_speed(self, models: Collection[str]) -> float:
        """Return the mean tokens per second of all responses under these names; 0 if none has reported it."""
        speeds = [cell.speed for (_, model), cell in self._routes.items() if model in models]
        responses = sum(sum(speed.counts) for speed in speeds)
        return sum(speed.total for speed in speeds) / responses if responses else 0.0

    def cancelled(self, route: str, model: str, phase: Literal["waiting", "answering"]) -> None:
        """Count a client that has disconnected: before the first byte of the response, or after it."""
        self._counters[metric_definitions.CANCELLED, (route or OTHER_ROUTE, model, phase)] += 1

    def queue_rejected(self, model: str, reason: Rejection) -> None:
        """Count a request that the queue of a model has rejected."""
        self._counters[metric_definitions.QUEUE_REJECTIONS, (model, reason)] += 1

    def limited(self, limit: LimitName, key_id: str) -> None:
        """Count a request that a limit of its key has rejected."""
        self._limited[limit, key_id if self._key_label else ""] += 1

    def limit_store(self, up: bool) -> None:
        """Set whether the shared store of the limits can be reached."""
        self._store_up = up

    def limit_store_failed(self) -> None:
        """Count a failed call to the shared store of the limits."""
        self._counters[metric_definitions.LIMIT_STORE_FAILURES, ()] += 1

    def engine_restarted(self, model: str) -> None:
        """Count a restart: the engine is ready again."""
        self._counters[metric_definitions.ENGINE_RESTARTS, (model,)] += 1

    def model_loaded(self, model: str, result: Literal[Residency.LOADED, Residency.FAILED]) -> None:
        """Count the end of a load."""
        self._counters[metric_definitions.MODEL_LOADS, (model, result)] += 1

    def keys_reloaded(self, ok: bool) -> None:
        """Count a reload of the keys file."""
        self._counters[metric_definitions.KEY_RELOADS, ("ok" if ok else "failed",)] += 1

    def render(self, accept: str, engine_text: bytes | None = None) -> tuple[bytes, str]:
        """Return body and content type: Prometheus' text format or OpenMetrics if `accept` names it, else JSON.

        `engine_text` is the body of the engine's own /metrics, if it was requested.
        """
        return render(self._registry, accept, engine_text)

    def families(self) -> Iterator[Metric]:
        """Yield every series of the table with its current values."""
        for declared in metric_definitions.SERIES:
            match declared.kind:
                case "counter":
                    yield self._counter(declared)
                case "gauge":
                    yield self._gauge(declared)
                case "histogram":
                    yield self._histogram(declared)

    def _counter(self, declared: Series) -> Metric:
        family = CounterMetricFamily(declared.name, declared.help)
        for values, key, count in self._counts_of(declared):
            labels = dict(zip(declared.labels, values, strict=True))
            if declared.per_key and self._key_label:
                labels["key"] = key
            family.add_sample(declared.name, labels | self._constant, count)
        return family

    def _counts_of(self, declared: Series) -> Iterator[tuple[Labels, str, int]]:
        if declared is metric_definitions.REQUESTS:
            for (route, model, status, outcome, key), count in self._requests.items():
                yield (route, model, str(status), outcome), key, count
        elif declared is metric_definitions.USAGE_FAILURES:
            yield (), "", self._usage_failures()
        elif declared is metric_definitions.LIMITED:
            for (limit, key), count in self._limited.items():
                yield (limit,), key, count
        elif declared in (
            metric_definitions.PROMPT_TOKENS,
            metric_definitions.CACHED_TOKENS,
            metric_definitions.COMPLETION_TOKENS,
        ):
            for (route, model, key), cell in self._tokens.items():
                yield (
                    (route, model),
                    key,
                    {
                        metric_definitions.PROMPT_TOKENS: cell.prompt,
                        metric_definitions.CACHED_TOKENS: cell.cached,
                        metric_definitions.COMPLETION_TOKENS: cell.completion,
                    }[declared],
                )
        else:
            known = [(values, count) for (owner, values), count in self._counters.items() if owner is declared]
            if not known and declared.labels in ((), ("model",)):
                # expose a counter of 0, so that `rate` works from the first increment
                known = [((model,), 0) for model in self._models] if declared.labels else [((), 0)]
            for values, count in known:
                yield values, "", count

    def _gauge(self, declared: Series) -> Metric:
        family = GaugeMetricFamily(declared.name, declared.help)
        for labels, value in self._gauge_values(declared):
            family.add_sample(declared.name, dict(zip(declared.labels, labels, strict=True)) | self._constant, value)
        return family

    def _gauge_values(self, declared: Series) -> Iterator[tuple[Labels, float]]:
        if declared is metric_definitions.BUILD_INFO:
            yield self._build, 1.0
        elif declared is metric_definitions.IN_FLIGHT:
            yield (), float(self._in_flight())
        elif declared is metric_definitions.LIMIT_STORE_UP:
            yield (), float(self._store_up)
        else:
            for model, probes in self._models.items():
                for labels, value in _values_of(declared, probes):
                    yield (model, *labels), value

    def _histogram(self, declared: Series) -> Metric:
        family = HistogramMetricFamily(declared.name, declared.help, labels=(*declared.labels, *self._constant))
        if declared is metric_definitions.QUEUE_WAIT:
            cells: list[tuple[Labels, _Histogram]] = [((model,), self._waits[model]) for model in self._models]
            cells += [((model,), wait) for model, wait in self._waits.items() if model not in self._models]
        else:
            cells = [(names, self._cell(declared, cell)) for names, cell in self._routes.items()]
        for labels, histogram in cells:
            running = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
                running += count
                buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), running))
            if running or declared is metric_definitions.QUEUE_WAIT:
                family.add_metric((*labels, *self._constant.values()), buckets, histogram.total)
        return family

    @staticmethod
    def _cell(declared: Series, cell: _RouteCell) -> _Histogram:
        return {
            metric_definitions.DURATION: cell.duration,
            metric_definitions.FIRST_TOKEN: cell.first_token,
            metric_definitions.INTER_TOKEN: cell.inter_token,
            metric_definitions.SPEED: cell.speed,
        }[declared]


class _Collector:
    """The registry's collector. `describe` returns nothing, because registering would collect otherwise."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return self._metrics.families()
