"""`limits`: rate limits and quotas of keys, and the request queue."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import EnvName, PathText, Seconds, Section, Text

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class Queue(Section):
    """Requests that wait for a slot of the engine, in order of priority and fairness."""

    max_size: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        256, description="Maximum queued requests; 0 = unlimited."
    )
    max_size_per_key: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0, description="Maximum queued requests per key; 0 = unlimited."
    )
    max_wait_seconds: Seconds = Field(300.0, description="Maximum time in the queue before 503 queue_timeout.")
    fairness: Literal["fair", "fifo"] = Field(
        "fair", description="`fair` shares the slots between keys by tokens; `fifo` serves in order of arrival."
    )
    aging_seconds: Seconds = Field(
        30.0, description="Time in the queue after which a request moves up one priority class."
    )


class RequestBounds(Section):
    """Bounds of what one request can ask for; beyond them it is refused with 400 and the field's name."""

    max_choices: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="Maximum `n`, the choices for one prompt; never more than engine.slots."
    )
    max_inputs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        2048, description="Maximum prompts, inputs to embed or documents to rank in a request."
    )
    max_stops: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="Maximum stop sequences.")
    max_tools: Annotated[int, Field(ge=0, le=10_000)] = Field(256, description="Maximum tools.")
    max_media: Annotated[int, Field(ge=0, le=10_000)] = Field(32, description="Maximum images and audio clips.")
    max_schemas: Annotated[int, Field(ge=1, le=100_000)] = Field(
        2000, description="Maximum size of a JSON schema: the schemas in it, one for each property."
    )
    max_schema_depth: Annotated[int, Field(ge=1, le=60)] = Field(
        32, description="Maximum depth of a JSON schema: of objects and lists in each other."
    )
    max_probabilities: Annotated[int, Field(ge=0, le=100)] = Field(
        100, description="Maximum `top_logprobs`, `logprobs` or `n_probs`: alternatives reported for each token."
    )
    max_logit_bias: Annotated[int, Field(ge=0, le=1024)] = Field(1024, description="Maximum entries of `logit_bias`.")
    max_grammar_characters: Annotated[int, Field(ge=0, le=65_536)] = Field(
        65_536, description="Maximum length of a `grammar`; 0 = no grammars."
    )
    max_nesting: Annotated[int, Field(ge=8, le=64)] = Field(
        64, description="Maximum depth of a body: of objects and lists in each other, those of schemas included."
    )


class Limits(Section):
    """Defaults for every key; a key's own limits override them. `null` = unlimited."""

    requests_per_minute: Count | None = Field(100, description="Requests per minute.")
    tokens_per_minute: Count | None = Field(None, description="Prompt and completion tokens per minute.")
    concurrency: Count | None = Field(None, description="Concurrent requests per key, including queued ones.")
    monthly_tokens: Count | None = Field(None, description="Tokens per calendar month (UTC).")
    max_in_flight: Count | None = Field(
        None, description="Maximum concurrent requests in the engine of each model; default engine.slots."
    )
    max_body_bytes_per_key: Annotated[int, Field(ge=1024, le=1_099_511_627_776)] = Field(
        67_108_864, description="Maximum bytes of one key's request bodies in progress, those still arriving included."
    )
    max_body_bytes_in_all: Annotated[int, Field(ge=1024, le=1_099_511_627_776)] = Field(
        268_435_456, description="Maximum bytes of all request bodies in progress, those still arriving included."
    )
    queue: Queue = Field(default_factory=Queue, description="Requests that wait for a slot.")
    request: RequestBounds = Field(default_factory=RequestBounds, description="Bounds of one request.")
    cache_isolation: Literal["key", "none"] = Field(
        "key",
        description="Whose prompts a prompt can reuse in the engine's cache: those of its own `key`, or with `none` "
        "everybody's, whose counts and times then show each key how much of its guess another has sent.",
    )
    store: Text = Field(
        "memory",
        description="Store of counters: `memory`, or redis://host:port/db (Redis or Valkey) shared by replicas.",
    )
    store_password_env: EnvName | None = Field(None, description="Variable that holds the password of the store.")
    usage_file: PathText | None = Field(
        None, description="SQLite file of usage per key and model; default DATA_DIR/usage.sqlite3."
    )
