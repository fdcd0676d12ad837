"""`engine.shrink`: what may be reduced when the model does not fit into memory after all."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import Section

ShrinkStep = Literal["slots", "context", "cache_type", "layers"]


class Shrink(Section):
    """What the next start may do with less of, after llama-server ran out of memory. Nothing unless it is listed."""

    steps: tuple[ShrinkStep, ...] = Field(
        (),
        description=(
            "What may be reduced after llama-server ran out of memory, in this order, one step at each start: `slots` "
            "and `context` by half, `cache_type` to q8_0, `layers` on the GPU by a quarter. Status and health show it."
        ),
    )
    min_slots: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Slots are not reduced below this, nor chosen less by `auto`."
    )
    min_context_per_slot: Annotated[int, Field(ge=256, le=16_777_216)] = Field(
        2048, description="The context of a slot is not reduced below this, nor chosen less by `auto`."
    )
    min_gpu_layers: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0, description="Layers on the GPU are not reduced below this."
    )
