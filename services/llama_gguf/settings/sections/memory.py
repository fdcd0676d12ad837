"""`memory`: how much of the machine's memory the models together can use, and when one gives way to another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import Seconds, Section

Mebibytes = Annotated[int, Field(ge=0, le=1_073_741_824)]


class Memory(Section):
    """The budget of the models that are loaded at the same time, and the rules by which they take turns."""

    device_mib: Literal["auto"] | Mebibytes = Field(
        "auto", description="Memory of all GPUs together for models, in MiB; `auto` = all that there is."
    )
    host_mib: Literal["auto"] | Mebibytes = Field(
        "auto", description="Main memory for models, in MiB; `auto` = that of the container or the machine."
    )
    min_resident_seconds: Seconds = Field(
        1.0,
        description="A model with requests serves at least this long before it gives way; an idle one does at once.",
    )
    max_swap_wait_seconds: Seconds = Field(
        60.0,
        description="After this long in the queue a request for an unloaded model stops new requests for a loaded one.",
    )
