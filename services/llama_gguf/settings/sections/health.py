"""`health`: the health server, for the platform that decides whether this box gets traffic."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llama_gguf.settings.health_paths import PING
from llama_gguf.settings.hosts import EVERY_INTERFACE
from llama_gguf.settings.platform import PlatformSetting
from llama_gguf.settings.sections.base import Port, Seconds, Section, Text, says


class Health(Section):
    """The health server: a port of its own, no key, no traffic through the gateway."""

    host: Text = Field(EVERY_INTERFACE, description="Address to listen on.")
    port: Port = Field(8001, description="Port of the health server.")
    path: Annotated[
        str,
        Field(pattern=r"^/[A-Za-z0-9._~/-]*$", json_schema_extra=says("a URL path that begins with /")),
    ] = Field(PING, description="Path of the platform's health check.")
    platform: PlatformSetting = Field(
        "auto", description="Whose contract the health check follows; `auto` looks at the platform's own variables."
    )
    check_interval_seconds: Seconds = Field(0.5, description="How often the engine and the gateway are looked at.")
    check_timeout_seconds: Seconds = Field(2.0, description="How long the engine may take to answer a check.")
