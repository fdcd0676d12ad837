"""`engine`: how llama-server runs the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import PathText, Seconds, Section, Text, pattern_message
from llama_gguf.settings.sections.engine_parts.reasoning import Reasoning
from llama_gguf.settings.sections.engine_parts.rope import Rope
from llama_gguf.settings.sections.engine_parts.shrink import Shrink
from llama_gguf.settings.sections.engine_parts.speculative import Speculative

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

Auto = Literal["auto"]
"""Left to the memory plan, which chooses a value for the machine when the engine starts."""

Device = Annotated[
    str, Field(pattern=r"^[^\s,]+$", json_schema_extra=pattern_message("a device's name, as in --list-devices"))
]


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
    context_per_slot: Auto | Annotated[int, Field(ge=0, le=16_777_216)] = Field(
        4096,
        description=(
            "Tokens of context for each request, prompt and completion together: `auto` as many as fit into memory, up "
            "to the trained context; 0 the trained context, for each slot with `fit`, else shared by all of them."
        ),
    )
    slots: Auto | Annotated[int, Field(ge=1, le=256)] = Field(
        4,
        description=(
            "Requests processed at the same time; each needs memory for context_per_slot tokens. `auto` as many as "
            "fit, at most 16; if both are `auto`, the context comes first."
        ),
    )
    gpu_layers: Literal["auto", "all"] | Annotated[int, Field(ge=0, le=10_000)] = Field(
        "auto",
        description="Layers on the GPU: `auto` as many as fit, `all`, or a number; 0 runs the model on the CPU.",
    )
    devices: tuple[Device, ...] = Field(
        (),
        description="GPUs to use, by llama-server's names (`CUDA0`); see `llama-server --list-devices`. Default: all.",
    )
    split_mode: Literal["auto", "none", "layer", "row", "tensor"] = Field(
        "auto",
        description=(
            "How several GPUs share the model: `layer` (what `auto` means) one after the other, `row` and `tensor` "
            "side by side, `none` one GPU only."
        ),
    )
    tensor_split: tuple[Annotated[float, Field(ge=0, le=1_000_000)], ...] = Field(
        (), description="Share of the model for each GPU, as in `[3, 1]`; default: by free memory. Turns `fit` off."
    )
    main_gpu: Annotated[int, Field(ge=0, le=255)] | None = Field(
        None,
        description="Number of the GPU for the whole model with split_mode none, and for small tensors with `row`.",
    )
    cpu_moe_layers: Literal["all"] | Annotated[int, Field(ge=0, le=10_000)] = Field(
        0,
        description=(
            "Mixture of experts: the first so many layers keep their experts in main memory, or `all`. Turns `fit` "
            "off, so that gpu_layers `auto` means all."
        ),
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="CPU threads for generation; 0 = one per physical core, within the container's CPU limit."
    )
    batch_size: Auto | Annotated[int, Field(ge=1, le=65_536)] = Field(
        2048,
        description=(
            "Logical batch size of prompt processing, in tokens. `auto`: 2048, or 512 with an ubatch_size of at most "
            "256 if the model does not fit otherwise; for `embed` and `rerank` the context, so that no input is too "
            "long."
        ),
    )
    ubatch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        512,
        description="Physical batch size of prompt processing, in tokens; `embed` and `rerank` use batch_size instead.",
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        "auto", description="Flash attention; required for a quantised V cache."
    )
    cache_type_k: Auto | CacheType = Field(
        "f16", description="Type of the K cache; q8_0 halves its memory. `auto`: f16, or q8_0 if it does not fit."
    )
    cache_type_v: Auto | CacheType = Field(
        "f16",
        description="Type of the V cache; a quantised one requires flash attention. `auto`: f16, or q8_0 as for K.",
    )
    prompt_cache_mib: Annotated[int, Field(ge=0, le=16_777_216)] = Field(
        1024,
        description="Main memory for caching the prompts of earlier requests, to process them only once; 0 = none.",
    )
    cache_reuse_tokens: Annotated[int, Field(ge=0, le=16_777_216)] = Field(
        0,
        description=(
            "Minimum length of cached text to reuse where a prompt only partly repeats an earlier one, as when its "
            "beginning was cut off; 0 = reuse beginnings only."
        ),
    )
    fit: bool = Field(
        True, description="Let llama-server reduce unset values until the model fits in the device's memory."
    )
    load_mode: Literal["auto", "mmap", "mlock", "mmap+mlock", "dio", "none"] = Field(
        "auto",
        description=(
            "How weights are read: `mmap` maps the file, `mlock` locks them in memory, `dio` reads around the page "
            "cache, `none` simply reads."
        ),
    )
    numa: Literal["off", "distribute", "isolate", "numactl"] = Field(
        "off",
        description=(
            "On machines with several NUMA nodes: `distribute` threads over all, `isolate` on the node of the start, "
            "or as `numactl` says."
        ),
    )
    rope: Rope = Field(default_factory=Rope, description="Contexts longer than the model was trained with.")
    reasoning: Reasoning = Field(default_factory=Reasoning, description="Reasoning before the response.")
    speculative: Speculative = Field(
        default_factory=Speculative, description="Guessing tokens, which the model verifies several at once."
    )
    shrink: Shrink = Field(
        default_factory=Shrink, description="What may be reduced if the model does not fit into memory."
    )
    sleep_idle_seconds: Seconds | None = Field(
        None,
        description="Stop llama-server after this long without a request; the next request starts it again.",
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
