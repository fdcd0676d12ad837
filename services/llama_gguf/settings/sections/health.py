"""`health`: the health server, for the platform that decides whether this instance gets traffic."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llama_gguf.settings.health_paths import PING
from llama_gguf.settings.hosts import EVERY_INTERFACE
from llama_gguf.settings.platform import PlatformSetting
from llama_gguf.settings.sections.base import Port, Seconds, Section, Text, pattern_message


class Health(Section):
    """The health server: a separate port, without API keys, independent of the gateway."""

    host: Text = Field(EVERY_INTERFACE, description="Address to listen on.")
    port: Port = Field(8001, description="Port of the health server.")
    path: Annotated[
        str,
        Field(pattern=r"^/[A-Za-z0-9._~/-]*$", json_schema_extra=pattern_message("a URL path that begins with /")),
    ] = Field(PING, description="Path of the platform's health check.")
    platform: PlatformSetting = Field(
        "auto", description="Platform whose health-check contract applies; `auto` detects it from its variables."
    )
    check_interval_seconds: Seconds = Field(0.5, description="Interval between checks of the engine and the gateway.")
    check_timeout_seconds: Seconds = Field(2.0, description="Timeout of a check of the engine.")
