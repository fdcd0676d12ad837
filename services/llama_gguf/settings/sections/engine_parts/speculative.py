"""`engine.speculative`: tokens are guessed cheaply, and the model verifies several at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import Section

SpeculationType = Literal[
    "draft-simple",
    "draft-eagle3",
    "draft-mtp",
    "draft-dflash",
    "draft-dspark",
    "ngram-simple",
    "ngram-map-k",
    "ngram-map-k4v",
    "ngram-mod",
    "ngram-cache",
]
"""llama-server's names of them."""


class Speculative(Section):
    """Speculative decoding. It changes how fast the tokens come, not which ones."""

    types: tuple[SpeculationType, ...] = Field(
        (),
        description=(
            "Where drafts come from, n-grams first: `ngram-…` from text that repeats, `draft-mtp` from the model's own "
            "MTP layers (or model.draft's), the other `draft-…` from model.draft. Default: what model.draft is made "
            "for. `ngram-mod` and `ngram-cache` learn from all requests, so the speed of responses reveals the text of "
            "others."
        ),
    )
    max_tokens: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Maximum tokens of a draft. Default: 3 for `draft-…`, 48 for `ngram-…`, 64 for `ngram-mod`.",
    )
    min_tokens: Annotated[int, Field(ge=0, le=1024)] | None = Field(
        None,
        description="Shorter drafts of `draft-…` and `ngram-mod` are not used. Default: 0, and 48 for `ngram-mod`.",
    )
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="A draft of `draft-…` ends before a token that is less probable than this. Default: 0."
    )
    ngram_size: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Tokens that must repeat for an `ngram-…` draft. Default: 12, and 24 for `ngram-mod`.",
    )
    ngram_min_hits: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None, description="How often they must repeat, for `ngram-simple` and `ngram-map-…`. Default: 1."
    )
