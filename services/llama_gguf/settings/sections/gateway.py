"""`gateway`: the public HTTP side."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from llama_gguf.settings.hosts import EVERY_INTERFACE, LOOPBACK
from llama_gguf.settings.sections.base import Port, Seconds, Section, Text

RouteGroup = Literal[
    "chat",
    "completions",
    "responses",
    "messages",
    "embeddings",
    "models",
    "rerank",
    "infill",
    "audio",
    "tokenize",
    "props",
]


class Timeouts(Section):
    """How long the gateway waits at each stage of a request."""

    connect_seconds: Seconds = Field(10.0, description="Timeout for connecting to the engine.")
    first_byte_seconds: Seconds = Field(
        300.0,
        description="Maximum time until the first event of a streamed response; each sign of life starts it again.",
    )
    idle_seconds: Seconds = Field(
        120.0, description="Maximum time between two chunks of a streamed response, the engine's pings included."
    )
    total_seconds: Seconds = Field(
        1800.0, description="Maximum duration of a request in the engine; the only limit unless it is streamed."
    )
    header_seconds: Seconds = Field(30.0, description="Maximum time for a client to send the request line and headers.")
    body_seconds: Seconds = Field(60.0, description="Maximum time for a client to send the body.")


class Cors(Section):
    """Cross-origin access for browsers; off unless origins are listed."""

    allow_origins: tuple[Text, ...] = Field((), description='Origins that browsers may call from; `"*"` for all.')
    max_age_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        600, description="How long browsers may cache a preflight response."
    )


class Gateway(Section):
    """The public HTTP server: its address, its routes, and the limits of a request."""

    host: Text = Field(EVERY_INTERFACE, description=f"Address to listen on; {LOOPBACK} keeps it on this machine.")
    port: Port = Field(8000, description="Port of the API.")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Time limits for each stage of a request.")
    max_body_bytes: Annotated[int, Field(ge=1024, le=1_073_741_824)] = Field(
        10_485_760, description="Maximum size of a request body, chunked or not."
    )
    max_headers: Annotated[int, Field(ge=8, le=1024)] = Field(
        64, description="Maximum number of header lines in a request."
    )
    max_header_line_bytes: Annotated[int, Field(ge=256, le=65_536)] = Field(
        8192, description="Maximum length of a header line."
    )
    max_request_line_bytes: Annotated[int, Field(ge=256, le=65_536)] = Field(
        8192, description="Maximum length of the request line."
    )
    cors: Cors = Field(default_factory=Cors, description="Cross-origin access for browsers.")
    routes: tuple[RouteGroup, ...] = Field(
        tuple(group for group in get_args(RouteGroup) if group != "props"),  # it reveals the engine's configuration
        description="Groups of engine routes that are open to keys with the scope `inference`.",
    )
    allow_remote_media: bool = Field(
        False,
        description="Allow remote media URLs in requests; the engine fetches them from inside your network.",
    )
    embedding_token_ids: Literal["warn", "refuse"] = Field(
        "warn",
        description="What to do with token ids in place of texts to embed, which are right only if they come from this "
        "model's tokenizer: `warn` the client in a header, or `refuse`.",
    )
    wait_for_engine_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        30.0,
        description="Maximum wait for an engine that loads or restarts, before 503; 0 disables waiting.",
    )
    sse_keepalive_seconds: Seconds = Field(
        15.0,
        description="A stream without a first byte after this long gets SSE comments, so that proxies do not close it.",
    )
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        30.0, description="Maximum time that a stop waits for requests in flight."
    )
