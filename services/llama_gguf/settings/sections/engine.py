"""`engine`: how llama-server runs the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import PathText, Seconds, Section, Text

CpuVariant = Literal[
    "x64",
    "sse42",
    "sandybridge",
    "ivybridge",
    "piledriver",
    "haswell",
    "skylakex",
    "cannonlake",
    "cascadelake",
    "icelake",
    "cooperlake",
    "zen4",
    "alderlake",
    "sapphirerapids",
    "armv8.0_1",
    "armv8.2_1",
    "armv8.2_2",
    "armv8.2_3",
    "armv8.6_1",
    "armv8.6_2",
    "armv9.2_1",
    "armv9.2_2",
]
"""The variants of ggml's CPU code, by its names; `engine.cpu_variants` lists the CPU flags that each needs."""

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


class Engine(Section):
    """llama-server's settings. The context is per slot: llama-server's own --ctx-size is this times `slots`."""

    task: Literal["generate", "embed", "rerank"] = Field(
        "generate", description="What the model does: generate text, compute embeddings, or rerank documents."
    )
    pooling: Literal["auto", "none", "mean", "cls", "last", "rank"] = Field(
        "auto",
        description=(
            "How `embed` pools an input's token embeddings: `auto` as the model's file says; see its model card. With "
            "`none` only /embeddings works, and returns one vector per token."
        ),
    )
    context_per_slot: Annotated[int, Field(ge=0, le=16_777_216)] = Field(
        4096,
        description=(
            "Tokens of context for each request, prompt and completion together; 0 = the trained context divided among "
            "the slots, less if memory is short."
        ),
    )
    slots: Annotated[int, Field(ge=1, le=256)] = Field(
        4, description="Requests processed at the same time; each needs memory for context_per_slot tokens."
    )
    gpu_layers: Literal["auto", "all"] | Annotated[int, Field(ge=0, le=10_000)] = Field(
        "auto",
        description="Layers on the GPU: `auto` as many as fit, `all`, or a number; 0 runs the model on the CPU.",
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="CPU threads for generation; 0 = one per physical core, within the container's CPU limit."
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        2048, description="Logical batch size of prompt processing, in tokens."
    )
    ubatch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        512,
        description="Physical batch size of prompt processing, in tokens; `embed` and `rerank` use batch_size instead.",
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        "auto", description="Flash attention; required for a quantised V cache."
    )
    cache_type_k: CacheType = Field("f16", description="Type of the K cache; q8_0 halves its memory.")
    cache_type_v: CacheType = Field("f16", description="Type of the V cache; a quantised one requires flash attention.")
    prompt_cache_mib: Annotated[int, Field(ge=0, le=16_777_216)] = Field(
        1024,
        description="Main memory for caching the prompts of earlier requests, to process them only once; 0 = none.",
    )
    fit: bool = Field(
        True, description="Let llama-server reduce unset values until the model fits in the device's memory."
    )
    sleep_idle_seconds: Seconds | None = Field(
        None, description="Unload the model after this long without a request; the next request loads it again."
    )
    cpu_variant: Literal["auto", CpuVariant] = Field(
        "auto",
        description=(
            "Variant of the engine's CPU code: `auto` the best for this CPU that has not crashed here, or a name; "
            "requires an engine with several variants, such as the images'."
        ),
    )
    binary: PathText | None = Field(
        None, description="llama-server to run; default: the one built with llama-cpp-python, else on PATH."
    )
    extra_args: tuple[Text, ...] = Field(
        (),
        description="Additional llama-server arguments, one per list item; they must not repeat or override a setting.",
    )
    allow_unsafe_args: bool = Field(
        False, description="Allow extra_args that expose files, tools or other users' prompts to clients."
    )
