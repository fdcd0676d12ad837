"""`supervisor`: how programs are restarted and stopped."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llama_gguf.settings.sections.base import Seconds, Section


class Supervisor(Section):
    """How programs are restarted and stopped."""

    start_retries: Annotated[int, Field(ge=0, le=100)] = Field(
        3,
        description="Restarts of a program that exits while starting, with increasing delays, before giving up.",
    )
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = Field(
        5, description="Crashes of one program within `restart_window_seconds` before the appliance gives up."
    )
    restart_window_seconds: Seconds = Field(600.0, description="Time window in which crashes are counted.")
    stop_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        10.0, description="Time for a program to stop, in addition to the gateway's drain, before it is killed."
    )
    exit_on_failure: bool = Field(
        True,
        description="Stop and exit non-zero when a program cannot stay up; with `false` health keeps responding 500.",
    )
    hold_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        0.0, description="Time that the container stays up after a failure, for debugging."
    )
