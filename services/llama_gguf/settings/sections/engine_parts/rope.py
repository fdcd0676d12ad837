"""`engine.rope`: contexts longer than the model was trained with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import Section

Factor = Annotated[float, Field(gt=0, le=1_000_000)]


class Rope(Section):
    """Scaling of RoPE, the encoding of positions; what is not set is as in the model's file. See its model card."""

    scaling: Literal["auto", "none", "linear", "yarn"] = Field(
        "auto", description="Method: `auto` the one in the model's file, else linear."
    )
    scale: Factor | None = Field(
        None,
        description=(
            "Factor of the context: 4 for 32768 tokens with a model trained for 8192. Only `yarn` lengthens what a "
            "slot can hold."
        ),
    )
    freq_base: Annotated[float, Field(gt=0, le=1_000_000_000_000)] | None = Field(
        None, description="Base frequency (theta), for NTK-aware scaling."
    )
    yarn_original_context: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(
        None, description="YaRN: tokens of context before scaling. Default: what the model was trained with."
    )
    yarn_extrapolation_factor: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="YaRN: mix of extrapolation and interpolation; 0 = interpolation only."
    )
    yarn_attention_factor: Factor | None = Field(None, description="YaRN: factor of the attention's magnitude.")
    yarn_beta_slow: Factor | None = Field(None, description="YaRN: high correction dimension, alpha.")
    yarn_beta_fast: Factor | None = Field(None, description="YaRN: low correction dimension, beta.")
