"""`logging`: what is logged, and where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import Section, Text, pattern_message

FileName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        json_schema_extra=pattern_message("a name of at most 64 letters, digits, dots, dashes and underscores"),
    ),
]


class Logging(Section):
    """What is logged, and where."""

    format: Literal["text", "json"] = Field("text", description="Format of log lines.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Minimum log level.")
    access_log: bool = Field(True, description="Log one line per request, without prompts or keys.")
    worker_type: FileName = Field(
        "default", description="Kind of worker: the directory of the log files, and a label of the metrics."
    )
    name: FileName = Field("llama-gguf", description="Prefix of the log files' names.")
    instance_id: Text | None = Field(
        None,
        description="Name of this instance in the boot log and metrics; default the platform's id or the host name.",
    )
    max_bytes: Annotated[int, Field(ge=65_536, le=10_737_418_240)] = Field(
        52_428_800, description="Size at which a log file is rotated."
    )
    backups: Annotated[int, Field(ge=0, le=100)] = Field(5, description="Number of rotated log files to retain.")
