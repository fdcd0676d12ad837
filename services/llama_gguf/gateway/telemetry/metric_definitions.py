"""Every metric of the gateway, declared once: name, type, help, labels and buckets.

The generated reference, the dashboard's test and `metrics` read this table; nothing else names a series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llama_gguf.states import EngineState

Buckets = tuple[float, ...]

FIRST_TOKEN_BUCKETS: Buckets = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
INTER_TOKEN_BUCKETS: Buckets = (
    *(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04),
    *(0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1),
)
DURATION_BUCKETS: Buckets = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
WAIT_BUCKETS: Buckets = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SPEED_BUCKETS: Buckets = (1, 2, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)


@dataclass(frozen=True, slots=True)
class Series:
    """One metric family. All also have the label `worker_type`, and `per_key` ones `key` with metrics.key_label.

    The label `model` is the name under which the model was requested, empty if that was not known yet.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: Buckets = ()
    per_key: bool = False


REQUESTS = Series(
    "llama_gguf_requests_total",
    "counter",
    "Completed requests, by route, model, status of the response and outcome.",
    ("route", "model", "status", "outcome"),
    per_key=True,
)
IN_FLIGHT = Series("llama_gguf_requests_in_flight", "gauge", "Requests in progress, queued ones included.")
DURATION = Series(
    "llama_gguf_request_duration_seconds",
    "histogram",
    "Time from the arrival of a request to the end of the response.",
    ("route", "model"),
    DURATION_BUCKETS,
)
FIRST_TOKEN = Series(
    "llama_gguf_time_to_first_token_seconds",
    "histogram",
    "Time from the arrival of a request to the first byte of the engine's response.",
    ("route", "model"),
    FIRST_TOKEN_BUCKETS,
)
INTER_TOKEN = Series(
    "llama_gguf_inter_token_seconds",
    "histogram",
    "Mean time between the tokens of a streamed response; counted once for each token.",
    ("route", "model"),
    INTER_TOKEN_BUCKETS,
)
SPEED = Series(
    "llama_gguf_tokens_per_second",
    "histogram",
    "Speed of generation of one request, as measured by the engine.",
    ("route", "model"),
    SPEED_BUCKETS,
)
PROMPT_TOKENS = Series(
    "llama_gguf_prompt_tokens_total",
    "counter",
    "Prompt tokens, cached ones included.",
    ("route", "model"),
    per_key=True,
)
CACHED_TOKENS = Series(
    "llama_gguf_cached_prompt_tokens_total",
    "counter",
    "Prompt tokens that were in the engine's cache.",
    ("route", "model"),
    per_key=True,
)
COMPLETION_TOKENS = Series(
    "llama_gguf_completion_tokens_total", "counter", "Tokens generated.", ("route", "model"), per_key=True
)
CANCELLED = Series(
    "llama_gguf_cancelled_requests_total",
    "counter",
    "Requests whose client disconnected, before the first byte of the response (waiting) or after it (answering).",
    ("route", "model", "phase"),
)
QUEUE_DEPTH = Series("llama_gguf_queue_depth", "gauge", "Requests waiting for a slot of the engine.", ("model",))
SLOTS_BUSY = Series("llama_gguf_slots_busy", "gauge", "Requests that hold a slot of the engine.", ("model",))
SLOTS = Series("llama_gguf_slots", "gauge", "Slots of the engine.", ("model",))
QUEUE_WAIT = Series(
    "llama_gguf_queue_wait_seconds",
    "histogram",
    "Time that requests waited for a slot of the engine.",
    ("model",),
    WAIT_BUCKETS,
)
QUEUE_REJECTIONS = Series(
    "llama_gguf_queue_rejections_total",
    "counter",
    "Requests rejected by the queue: the queue was full (queue), the key had reached its maximum of queued requests "
    "(key), or the wait was too long (timeout).",
    ("model", "reason"),
)
LIMITED = Series(
    "llama_gguf_limited_requests_total",
    "counter",
    "Requests rejected by a limit of their key: requests, tokens, concurrency or monthly_tokens.",
    ("limit",),
    per_key=True,
)
LIMIT_STORE_UP = Series(
    "llama_gguf_limit_store_up",
    "gauge",
    "1 if the store of the limits can be reached; at 0 each replica applies the limits on its own.",
)
LIMIT_STORE_FAILURES = Series(
    "llama_gguf_limit_store_failures_total", "counter", "Failed calls to the shared store of the limits."
)
ENGINE_STATE = Series(
    "llama_gguf_engine_state",
    "gauge",
    f"1 for the current state of the engine ({', '.join(EngineState)}), 0 for the others.",
    ("model", "state"),
)
MODEL_LOADS = Series(
    "llama_gguf_model_loads_total",
    "counter",
    "Times that the gateway loaded a model, and how it ended (loaded, failed).",
    ("model", "result"),
)
MODEL_LOAD_SECONDS = Series(
    "llama_gguf_model_load_seconds", "gauge", "How long the model's last load took; 0 before the first.", ("model",)
)
MODEL_PLANNED_BYTES = Series(
    "llama_gguf_model_planned_bytes",
    "gauge",
    "Memory that the model is counted with, on GPUs (device) and in main memory (host).",
    ("model", "memory"),
)
ENGINE_RESTARTS = Series(
    "llama_gguf_engine_restarts_total",
    "counter",
    "Times another process of the engine became ready than before.",
    ("model",),
)
ENGINE_CPU_VARIANT = Series(
    "llama_gguf_engine_cpu_variant",
    "gauge",
    "1 for the variant of its CPU code that the engine runs; absent if it has only one, or chooses it itself.",
    ("model", "variant"),
)
ENGINE_CPU_VARIANTS_REJECTED = Series(
    "llama_gguf_engine_cpu_variants_rejected",
    "gauge",
    "Faster variants of the engine's CPU code that are not used because they crashed on this machine.",
    ("model",),
)
KEY_RELOADS = Series(
    "llama_gguf_key_reloads_total",
    "counter",
    "Reloads of the keys file; after a failed one the previous keys stay in use.",
    ("result",),
)
USAGE_FAILURES = Series(
    "llama_gguf_usage_write_failures_total",
    "counter",
    "Failed writes of the usage file; their data is written with the next one.",
)
BUILD_INFO = Series(
    "llama_gguf_build_info",
    "gauge",
    "Always 1; the labels contain versions and instance.",
    ("version", "engine", "instance_id"),
)

SERIES: tuple[Series, ...] = (
    REQUESTS,
    IN_FLIGHT,
    DURATION,
    FIRST_TOKEN,
    INTER_TOKEN,
    SPEED,
    PROMPT_TOKENS,
    CACHED_TOKENS,
    COMPLETION_TOKENS,
    CANCELLED,
    QUEUE_DEPTH,
    SLOTS_BUSY,
    SLOTS,
    QUEUE_WAIT,
    QUEUE_REJECTIONS,
    LIMITED,
    LIMIT_STORE_UP,
    LIMIT_STORE_FAILURES,
    ENGINE_STATE,
    ENGINE_RESTARTS,
    MODEL_LOADS,
    MODEL_LOAD_SECONDS,
    MODEL_PLANNED_BYTES,
    ENGINE_CPU_VARIANT,
    ENGINE_CPU_VARIANTS_REJECTED,
    KEY_RELOADS,
    USAGE_FAILURES,
    BUILD_INFO,
)

PROCESS_SERIES: tuple[str, ...] = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)
"""Of the gateway's own process, by prometheus_client."""

ENGINE_SERIES: tuple[str, ...] = (
    "llamacpp:prompt_tokens_total",
    "llamacpp:prompt_tokens_cached_total",
    "llamacpp:prompt_seconds_total",
    "llamacpp:tokens_predicted_total",
    "llamacpp:tokens_predicted_seconds_total",
    "llamacpp:n_decode_total",
    "llamacpp:n_tokens_max",
    "llamacpp:spec_decode_num_draft_tokens_total",
    "llamacpp:spec_decode_num_accepted_tokens_total",
    "llamacpp:spec_decode_num_drafts_total",
    "llamacpp:prompt_tokens_seconds",
    "llamacpp:predicted_tokens_seconds",
    "llamacpp:requests_processing",
    "llamacpp:requests_deferred",
    "llamacpp:n_busy_slots_per_decode",
)
"""llama-server's own, passed on: of several models with the label `model`. A test compares them with the engine's."""
